"""Orthographies: what makes a text unfit, what is counted, when a dataset contradicts its declaration.

N'Ko is written as escapes where a mark alone would be invisible.
"""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thunder_train import ThunderError
from thunder_train.data.orthography import (
    BANNED,
    BREAK,
    REASONS,
    STRAY,
    TABLES,
    Orthography,
    Spelling,
    contradictions,
    faults,
    findings,
    from_table,
    unfit,
)

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


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (TONELESS, ()),
        (TONED, ()),
        ("\u07ca\u0294\u07e3\u02bc \u07c1\u07c2 12 (\u07ca\u060c \u07ca\u07f8) \u07fa", ()),
        ("\u07ca\ufffd", ("replacement character U+FFFD",)),
        ("\u07ca\x00", ("control character",)),
        ("\u07ca\x85", ("control character",)),
        ("\u07ca\u2028", ("control character",)),
        ("\u07ca\ud800", ("lone surrogate",)),
        ("\u202e\u07ca", ("bidi control",)),
        ("\u07ca\u200f", ("bidi control",)),
        ("\u07ca\n\u07ca", ("line break or tab",)),
        ("van \u07ca", ("stray script",)),
        ("\u07ca\u0301", ("stray script",)),
        ("\u07ca \u0665", ("stray script",)),
        ("\u07ca \ue000", ("stray script",)),
        ("\u07ca \U0001f600 \u201c\u2044\u00a0", ()),
        ("v\u202e\ufffd\t", ("replacement character U+FFFD", "bidi control", "line break or tab", "stray script")),
    ],
)
def test_a_text_is_unfit_for_these_reasons(text: str, expected: tuple[str, ...]) -> None:
    """
    Letters, marks and digits of another script cannot be learned; a sign that nobody listed does no harm.
    """
    assert expected == faults(text, BRIDGE)


def test_without_a_table_every_script_is_at_home() -> None:
    """
    A data set that declares no orthography is still kept from what no text may hold.
    """
    assert () == faults("caf\u00e9 \u0416 \u07ca", None)
    assert ("bidi control",) == faults("caf\u00e9\u202a", None)


def test_the_apostrophe_of_the_bridge_is_no_standard_letter() -> None:
    """
    Each table lists its own letters.
    """
    assert ((), ("stray script",)) == (faults("\u07e3\u0294\u07ca", BRIDGE), faults("\u07e3\u0294\u07ca", STANDARD))


@pytest.mark.parametrize(
    ("hypothesis", "reference", "answer", "is_prose", "expected"),
    [
        ("\u07ca v", "\u07ca", "\u07ca", False, ""),
        ("\u07ca", "\u07ca v", "\u07ca v", False, "stray script in the reference"),
        ("\u07ca v", "", "\u07ca v", False, "stray script in the answer"),
        ("\u07ca\ufffd", "\u07ca", "\u07ca", False, "replacement character U+FFFD in the hypothesis"),
        ("v\u202e", "\u07ca", "\u07ca", False, "bidi control in the hypothesis"),
        ("\u07ca", "\u07ca\n", "\u07ca", False, "line break or tab in the reference"),
        ("", "", "\u07ca\n\u07ca", False, "line break or tab in the answer"),
        ("", "", "\u07ca\n\u07ca", True, ""),
        ("", "\u07ca\n\u07ca", "\u07ca\n\u07ca", True, ""),
        ("", "", "\u07ca\n\x00", True, "control character in the answer"),
    ],
)
def test_a_row_must_not_teach_for_these_reasons(
    hypothesis: str, reference: str, answer: str, is_prose: bool, expected: str
) -> None:
    """
    A recogniser may say anything, but nobody shall learn to write it; a conversation may have lines.
    """
    assert expected == unfit(hypothesis, reference, answer, BRIDGE, is_prose)


def test_letters_marks_words_and_strays_are_counted() -> None:
    """
    Marks are left off before words are counted, and part of a longer word is not the word.
    """
    words = "\u07de\u07cf\u07eb \u07de\u07cf \u07de\u07cb\u060c \u07de\u07cf\u07e3 \u07ca\u07de\u07cf"

    counts = spelling(STANDARD, words, "v \u07ca \U0001f600v").counts()

    assert (2, 13, 1) == (counts.texts, counts.letters, counts.marks)
    assert {"\u07de\u07cb": 1, "\u07de\u07cf": 2} == +counts.words
    assert {"v": 2, "\U0001f600": 1} == counts.strays


def test_what_is_not_refused_is_counted() -> None:
    """
    NFC corrects the order of marks, doubled marks stay: both cost edits that nobody hears.
    """
    nasal_last, doubled = "\u07ca\u07eb\u07f2", "\u07ca\u07eb\u07eb"

    counted = spelling(STANDARD, nasal_last, doubled, "\u07ca\u212b", "\u07ca v", "\u07ca\u07eb\n\u07eb", "\u0301")

    assert [
        {"what": "texts whose marks NFC puts in order", "count": 1},
        {"what": "texts that NFC changes otherwise", "count": 1},
        {"what": "doubled marks", "count": 1},
        {"what": "stray v (U+0076)", "count": 1},
        {"what": "stray \u00c5 (U+00C5)", "count": 1},
        {"what": "stray U+0301", "count": 1},
    ] == findings(counted)


def test_without_a_table_only_what_nfc_changes_is_counted() -> None:
    """
    Marks and strays need a table, canonical order does not.
    """
    assert [{"what": "texts that NFC changes otherwise", "count": 1}] == findings(spelling(None, "e\u0301", "v"))


def test_batches_do_not_show() -> None:
    """
    Counting a thousand texts at once is only faster.
    """
    whole, parts = spelling(STANDARD, TONED, TONELESS, "v", times=700), Spelling(STANDARD)
    for text in (TONED, TONELESS, "v") * 700:
        parts.add(text)
        if len(text) == 1:
            parts.counts()

    assert whole.counts() == parts.counts()


def test_texts_that_keep_to_their_orthography_are_accepted() -> None:
    """
    Nothing is said of what is as it was declared.
    """
    assert [] == contradictions(spelling(BRIDGE, TONELESS, times=100), BRIDGE, "here")
    assert [] == contradictions(spelling(STANDARD, TONED, times=100), STANDARD, "here")
    sparse = TONED + TONED.replace("\u07eb", "").replace("\u07f2", "")
    assert [] == contradictions(spelling(STANDARD, *[TONED * 2] * 2, sparse, times=100), STANDARD, "here")


def test_toned_texts_declared_toneless_are_refused_with_the_figures() -> None:
    """
    A model that learned both spellings "corrects" right text: the likeliest cause of blind harm.
    """
    assert [
        "thunder.toml: datasets.d: 'bridge-toneless' is declared, but the texts have 0.438 marks per letter "
        "(700 on 1,600), not 0 to 0.02; declare 'standard-toned', or leave the source out",
        "thunder.toml: datasets.d: 'bridge-toneless' is declared, but 0 of 100 words ߞߋ (U+07DE U+07CB) and "
        "ߞߏ (U+07DE U+07CF) are ߞߋ, not 60% to 100%; declare 'standard-toned', or leave the source out",
        "thunder.toml: datasets.d: 'bridge-toneless' is declared, but 0 of 100 words ߦߍ (U+07E6 U+07CD) and "
        "ߦߋ (U+07E6 U+07CB) are ߦߍ, not 90% to 100%; declare 'standard-toned', or leave the source out",
    ] == texts_of(contradictions(spelling(BRIDGE, TONED, times=100), BRIDGE, "thunder.toml: datasets.d"))


def test_toneless_texts_declared_toned_are_refused() -> None:
    """
    The other way round; the hint names the table that fits.
    """
    assert [
        "here: 'standard-toned' is declared, but the texts have 0.000 marks per letter (0 on 1,700), not 0.2 to 0.9; "
        "declare 'bridge-toneless', or leave the source out"
    ] == texts_of(contradictions(spelling(STANDARD, TONELESS, times=100), STANDARD, "here"))[:1]


def test_standard_text_that_only_lost_its_tones_is_no_bridge_text() -> None:
    """
    Without marks the vowels still tell.
    """
    bare = "".join(letter for letter in TONED if not unicodedata.combining(letter))

    assert [
        "here: 'bridge-toneless' is declared, but 0 of 100 words ߞߋ (U+07DE U+07CB) and ߞߏ (U+07DE U+07CF) are ߞߋ, "
        "not 60% to 100%; leave out what is spelled otherwise"
    ] == texts_of(contradictions(spelling(BRIDGE, bare, times=100), BRIDGE, "here"))[:1]


def test_a_few_texts_of_another_orthography_are_refused() -> None:
    """
    A tenth without marks moves no mean out of its bounds, but long texts show it one by one.
    """
    bare = "".join(letter for letter in TONED * 2 if not unicodedata.combining(letter))

    counted = spelling(STANDARD, *[TONED * 2] * 9, bare, times=20)

    assert [
        "here: 'standard-toned' is declared, but 20 of 200 long texts have too few or too many marks for it: "
        "two orthographies are mixed; leave out what is spelled otherwise"
    ] == texts_of(contradictions(counted, STANDARD, "here"))


def test_too_little_text_shows_nothing() -> None:
    """
    The smoke sources have few words; a verdict on them would be a guess.
    """
    assert [] == contradictions(spelling(BRIDGE, TONED, times=5), BRIDGE, "here")


TURKISH = {"letters": "a-z\u00e7\u011f\u0131\u00f6\u015f\u00fc", "shared": "0-9.,"}


def test_another_language_is_another_table() -> None:
    """
    docs/orthography.md says how to write one; nothing in the code knows N'Ko.
    """
    ratio = {"of": "de\u011fil", "among": ["de\u011fil", "degil"], "low": 0.9, "high": 1.0}

    table = from_table("turkish", {**TURKISH, "ratios": [ratio]}, "here")

    assert ((), ("stray script",)) == (faults("\u0131r\u011fat 3.", table), faults("quid? \u00e9", table))
    assert [
        "here: 'turkish' is declared, but 0 of 40 words de\u011fil (U+0064 U+0065 U+011F U+0069 U+006C) and degil "
        "(U+0064 U+0065 U+0067 U+0069 U+006C) are de\u011fil, not 90% to 100%; leave out what is spelled otherwise"
    ] == texts_of(contradictions(spelling(table, "bu degil", times=40), table, "here"))


def test_signs_that_mean_something_in_a_class_are_written_with_a_backslash() -> None:
    """
    A bare one would reach into the class beside it.
    """
    table = from_table("turkish", TURKISH | {"shared": r".\-\[\]\\"}, "here")

    assert ((), ("stray script",)) == (faults(r"a [-] \.", table), faults("2", table))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"letters": ""}, "letters: is empty; list the letters, such as 'a-z\\u00e0-\\u00ff'"),
        (
            {"letters": "z-a"},
            "letters: is not a character class: 'z-a' (bad character range z-a at position 1); "
            "write what is between [ and ] in a regex, such as 'a-z\\u00e0-\\u00ff'",
        ),
        (
            {"letters": "ae\u0301"},
            "letters: is not in NFC: 'ae\u0301'; write each letter as one code point, and marks as escapes, "
            "such as \\u0301",
        ),
        ({"letters": "^a"}, "letters: holds a bare [, ] or an outer ^ or -: '^a'; write \\ before it"),
        ({"letters": "a]b"}, "letters: holds a bare [, ] or an outer ^ or -: 'a]b'; write \\ before it"),
        ({"shared": ".-"}, "shared: holds a bare [, ] or an outer ^ or -: '.-'; write \\ before it"),
        (
            {"letters": "a\\"},
            "letters: is not a character class: 'a\\\\' (unterminated character set at position 0); "
            "write what is between [ and ] in a regex, such as 'a-z\\u00e0-\\u00ff'",
        ),
        ({"shared": r"\s."}, "shared: lets a line break or tab through (U+0009); leave it out: no text may hold it"),
        (
            {"marks": "\u0300-\uffff"},
            "marks: lets a bidi control through (U+061C); leave it out: no text may hold it",
        ),
        ({"marks_per_letter": [0.5, 0.1]}, "marks_per_letter: wrong bounds: 0.5 to 0.1; give 0 <= low <= high <= 4"),
        (
            {"ratios": [{"of": "a", "among": ["a", "\u00e9"], "low": 0, "high": 1}]},
            "ratios[0]: '\u00e9' is not a word of this orthography; "
            "give words in NFC of `letters` only: marks are left off before words are counted",
        ),
        (
            {"ratios": [{"of": "a", "among": ["b", "c"], "low": 0, "high": 1}]},
            "ratios[0]: `of` is not one of two words or more `among`; add it and its rivals",
        ),
        (
            {"ratios": [{"of": "a", "among": ["a", "b"], "low": 0, "high": 2}]},
            "ratios[0]: wrong bounds: 0 to 2; give 0 <= low <= high <= 1",
        ),
    ],
)
def test_a_wrong_table_is_refused(change: dict[str, object], expected: str) -> None:
    """
    A class that says something else than its writer thinks would drop rows, or let them through, for no visible reason.
    """
    with pytest.raises(ThunderError) as error:
        from_table("turkish", TURKISH | change, "here")

    assert f"here.{expected}" == str(error.value)


@given(st.text() | NKO)
def test_no_text_breaks_the_checks(text: str) -> None:
    """
    Reasons come from the fixed set, and only for a cause; NFC neither adds nor removes one in N'Ko.
    """
    composed = unicodedata.normalize("NFC", text)
    for table in (None, BRIDGE, STANDARD):
        found = faults(composed, table)
        assert set(found) <= set(REASONS)
        assert list(found) == sorted(found, key=REASONS.index)
        assert not (table is None and STRAY in found)
        assert faults(composed, None) == tuple(each for each in found if each != STRAY)
        counted = spelling(table, text)
        assert 1 == counted.counts().texts
        assert contradictions(counted, BRIDGE, "here") == [] or len(text) > 20
        assert all(one["count"] for one in findings(counted))


@given(NKO)
def test_each_character_is_counted_once(text: str) -> None:
    """
    Letters, marks, spaces, shared signs and strays together are the text.
    """
    counts = spelling(STANDARD, text).counts()
    shared = sum(unicodedata.category(each) in ("Nd", "Po", "So", "Sc") or each in "\u07f4\u07f5" for each in text)

    assert len(text) == counts.letters + counts.marks + text.count(" ") + shared + counts.strays.total()


@given(st.sampled_from(sorted(BANNED)), NKO)
def test_what_is_banned_is_found_wherever_it_stands(reason: str, text: str) -> None:
    """
    No table can let it through.
    """
    example = {"bidi control": "\u2067", BREAK: "\r", "control character": "\x7f", "lone surrogate": "\udfff"}

    assert reason in faults(text + example.get(reason, "\ufffd") + text, STANDARD)
