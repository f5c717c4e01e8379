"""N'Ko texts in two orthographies, and their counts."""

from hypothesis import strategies as st

from thunder_train import ThunderError
from thunder_train.core.characters import Orthography
from thunder_train.data.orthography import TABLES
from thunder_train.data.spelling import Spelling

BRIDGE, STANDARD = TABLES["bridge-toneless"], TABLES["standard-toned"]
TONELESS = "\u07db\u07cb\u07dc\u07ca \u07de\u07cb \u07ca\u07e3 \u07e6\u07cd \u07d5\u07ca\u07ca \u07db\u07ce\u07dc\u07ce"
"""A sentence as the bridge spells it: "ko" and "ye" in it."""
TONED = (
    "\u07db\u07cf\u07eb\u07dc\u07ca \u07de\u07cf\u07eb \u07ca\u07ec\u07f2 \u07e6\u07cb\u07eb "
    "\u07d5\u07ca\u07ef\u07ca \u07db\u07ce\u07dc\u07ce\u07f2"
)
"""The same in standard spelling: other vowels, tones, nasal marks."""
NKO = st.text(st.characters(min_codepoint=0x7C0, max_codepoint=0x7FF) | st.sampled_from(" v\u0294"))


def spelling(table: Orthography | None, *texts: str, times: int = 1) -> Spelling:
    """The counts of some texts."""
    counted = Spelling(table)
    for text in texts * times:
        counted.add(text)
    return counted


def texts_of(problems: list[ThunderError]) -> list[str]:
    """The texts of errors."""
    return [str(problem) for problem in problems]
