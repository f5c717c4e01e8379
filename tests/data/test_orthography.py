"""Orthographies: what makes a text unfit, and how a text is cleaned.

N'Ko is written as escapes where a mark alone would be invisible.
"""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.texts import BRIDGE, NKO, STANDARD, TONED, TONELESS, spelling, texts_of
from thunder_train import ThunderError
from thunder_train.core.characters import BANNED, BREAK, INVISIBLE, REASONS, STRAY, Orthography, cleaned, faults
from thunder_train.data.orthography import from_table, unfit
from thunder_train.data.spelling import contradictions, findings


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (TONELESS, ()),
        (TONED, ()),
        ("\u07ca\u0294\u07e3\u02bc \u07c1\u07c2 12 (\u07ca\u060c \u07ca\u07f8) \u07fa", ()),
        ("\u07ca\ufffd", ("replacement character U+FFFD",)),
        ("\u07ca\x00", ("invisible character U+0000",)),
        ("\u07ca\x9f", ("invisible character U+009F",)),
        ("\u07ca\u2028", ("line break or tab U+2028",)),
        ("\u07ca\ufdd0", ("noncharacter",)),
        ("\u07ca\u200b\u200f", ("invisible character U+200B",)),
        ("\u07ca\ud800", ("lone surrogate",)),
        ("\u202e\u07ca", ("invisible character U+202E",)),
        ("\u07ca\u200f", ("invisible character U+200F",)),
        ("\u07ca\n\u07ca", ("line break or tab U+000A",)),
        ("van \u07ca", ("stray script",)),
        ("\u07ca\u0301", ("stray script",)),
        ("\u07ca \u0665", ("stray script",)),
        ("\u07ca \ue000", ("stray script",)),
        ("\u07ca \U0001f600 \u201c\u2044\u00a0", ()),
        (
            "v\u202e\ufffd\t",
            ("replacement character U+FFFD", "invisible character U+202E", "line break or tab U+0009", "stray script"),
        ),
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
    assert ("line break or tab U+000A",) == faults("caf\u00e9\n", None)


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
        ("v\u202e", "\u07ca", "\u07ca", False, "invisible character U+202E in the hypothesis"),
        ("\u07ca", "\u07ca\n", "\u07ca", False, "line break or tab U+000A in the reference"),
        ("", "", "\u07ca\n\u07ca", False, "line break or tab U+000A in the answer"),
        ("", "", "\u07ca\n\u07ca", True, ""),
        ("", "\u07ca\n\u07ca", "\u07ca\n\u07ca", True, ""),
        ("", "", "\u07ca\n\x00", True, "invisible character U+0000 in the answer"),
    ],
)
def test_a_row_must_not_teach_for_these_reasons(
    hypothesis: str, reference: str, answer: str, is_prose: bool, expected: str
) -> None:
    """
    A recogniser may say anything, but nobody shall learn to write it; a conversation may have lines.
    """
    assert expected == unfit(hypothesis, reference, answer, BRIDGE, is_prose)


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
        ({"shared": r"\s."}, "shared: lets U+0009 through (line break or tab); leave it out: no text may hold it"),
        (
            {"marks": "\u0300-\uffff"},
            "marks: lets U+2028 through (line break or tab); leave it out: no text may hold it",
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
        reasons = [each.partition(" U+")[0] if each not in REASONS else each for each in faults(composed, table)]
        assert set(reasons) <= set(REASONS)
        assert reasons == sorted(reasons, key=REASONS.index)
        assert not (table is None and STRAY in reasons)
        assert faults(composed, None) == tuple(each for each in faults(composed, table) if each != STRAY)
        counted = spelling(table, text)
        assert 1 == counted.counts().texts
        assert contradictions(counted, BRIDGE, "here") == [] or len(text) > 20
        assert all(one["count"] for one in findings(counted))


@given(st.sampled_from(sorted(BANNED)), NKO)
def test_what_is_banned_is_found_wherever_it_stands(reason: str, text: str) -> None:
    """
    No table can let it through.
    """
    example = {INVISIBLE: "\u2067", BREAK: "\r", "noncharacter": "\ufffe", "lone surrogate": "\udfff"}

    assert any(each.startswith(reason) for each in faults(text + example.get(reason, "\ufffd") + text, STANDARD))


def table(invisible: str) -> Orthography:
    """A table that says what becomes of invisible characters."""
    return from_table("turkish", TURKISH | {"invisible": invisible}, "here")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (" the cat \n", "the cat"),
        ("\u3000the\u00a0cat\u00a0\u2028", "the\u00a0cat"),
        ("\ufeff the\u200b c\u00adat \u200f", "the cat"),
        ("the\0 c\x1bat\U000e0041", "the cat"),
        ("e\u200b\u0301", "\u00e9"),
        ("می\u200cرود \U0001f469\u200d\U0001f52c", "می\u200cرود \U0001f469\u200d\U0001f52c"),
        ("the\ncat", "the\ncat"),
        ("\u200b\u202a\u202c \t", ""),
    ],
)
def test_blanks_around_a_text_and_invisible_characters_are_removed(text: str, expected: str) -> None:
    """
    Nobody heard them, but each would cost an edit. Joiners are part of words and of emoji.
    """
    assert (expected, expected) == (cleaned(text, None), cleaned(text, table("remove")))


@pytest.mark.parametrize("text", [" ستة\u200f! \n", "\u00ad\U0001f469\u200d\U0001f52c\ufeff", "a\x1b[0m\u200b"])
def test_a_conversation_keeps_its_characters(text: str) -> None:
    """
    A right-to-left mark, an escape of a terminal's log: without an orthography nobody said that they are wrong. A text
    with NUL breaks programs written in C.
    """
    assert (text, text, ()) == (
        cleaned(text, None, is_prose=True),
        cleaned(text + "\0", None, is_prose=True),
        faults(text, None, is_prose=True),
    )
    assert ("lone surrogate",) == faults("\ufffd\ud800", None, is_prose=True)


def test_with_a_table_a_conversation_loses_invisible_characters_but_no_blanks() -> None:
    """
    The table is declared for all texts of the dataset; a code block ends in a line break.
    """
    assert " a\n" == cleaned(" a\u200b\n", table("remove"), is_prose=True)


def test_a_range_may_hold_invisible_characters() -> None:
    """
    Those of Arabic do. What becomes of them is said elsewhere.
    """
    arabic = {"letters": r"\u0600-\u06ff"}
    strict = from_table("arabic", arabic | {"invisible": "drop"}, "here")

    assert "\u0633" == cleaned("\u0633\u061c", from_table("arabic", arabic, "here"))
    assert ("invisible character U+061C",) == faults("\u0633\u061c", strict)


def test_a_table_may_drop_or_keep_texts_with_invisible_characters() -> None:
    """
    Khmer separates words by U+200B; in another corpus it is a sign of text copied from a page. No text needs a NUL.
    """
    text = "a\u200bb\0"

    assert ("a\u200bb", ()) == (cleaned(text, table("keep")), faults("a\u200bb", table("keep")))
    assert (text, "invisible character U+200B in the reference") == (
        cleaned(text, table("drop")),
        unfit("a", text, text, table("drop")),
    )


@given(st.text())
def test_cleaning_twice_changes_nothing(text: str) -> None:
    """
    A cleaned text is in NFC, without outer blanks, and has no invisible character.
    """
    once = cleaned(text, None)

    assert once == cleaned(once, None) == once.strip() == unicodedata.normalize("NFC", once)
    assert not any(each.startswith(INVISIBLE) for each in faults(once, None))
