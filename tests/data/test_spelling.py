"""What the texts of a source show together: counts, and when they contradict the declared orthography.

N'Ko is written as escapes where a mark alone would be invisible.
"""

import unicodedata

from hypothesis import given

from tests.helpers.texts import BRIDGE, NKO, STANDARD, TONED, TONELESS, spelling, texts_of
from thunder_train.data.spelling import Spelling, Stray, contradictions, described, findings


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


@given(NKO)
def test_each_character_is_counted_once(text: str) -> None:
    """
    Letters, marks, spaces, shared signs and strays together are the text.
    """
    counts = spelling(STANDARD, text).counts()
    shared = sum(unicodedata.category(each) in ("Nd", "Po", "So", "Sc") or each in "\u07f4\u07f5" for each in text)

    assert len(text) == counts.letters + counts.marks + text.count(" ") + shared + counts.strays.total()


def test_invisible_characters_are_counted_whatever_becomes_of_them() -> None:
    """
    A person who looks for a missing character finds in the audit where it went.
    """
    counted, chat = Spelling(BRIDGE), Spelling(None)

    assert ["\u07ca", "\u07ca"] == [counted.cleaned("\ufeff\u07ca\u200b"), counted.cleaned("\u07ca\u200b")]
    assert "\u200fa" == chat.cleaned("\u200fa\0", is_prose=True)
    assert ({"\u200b": 2, "\ufeff": 1}, {"\u200f": 1, "\0": 1}) == (counted.invisible, chat.invisible)


def test_removed_blanks_are_counted() -> None:
    """
    A reader who compares the rows with their source must not wonder. A conversation keeps its blanks.
    """
    counted = Spelling(None)
    for text in (" a", "a\u3000", "\n", "a b", ""):
        counted.cleaned(text)
    counted.cleaned(" a", is_prose=True)

    assert [{"what": "texts with blanks around them, which are removed", "count": 3}] == findings(counted)


def test_stray_letters_are_counted_with_a_row_that_has_them() -> None:
    """
    A Cyrillic letter looks as its Latin twin: only its name and a row show where it came from.
    """
    counted, good = Spelling(BRIDGE), "\u07ca"

    assert "" == counted.unfit("a:1", "\u0430\u0430 \u07ca\U0001f600", good, good)
    assert "stray script in the reference" == counted.unfit("a:2", "z", "\u0430 v", "\u0430 v")
    assert "stray script in the answer" == counted.unfit("a:3", "\u0430", "", "\u0430")
    assert "line break or tab U+000A in the reference" == counted.unfit("a:4", "q", "\n", "\n")
    assert "" == counted.unfit("a:5", "q", good, good)
    assert {"\u0430": Stray(1, 2, "a:2"), "v": Stray(0, 1, "a:2"), "q": Stray(1, 0, "a:5")} == counted.stray_letters
    assert {} == Spelling(None).stray_letters


def test_characters_are_described_by_code_point_and_name() -> None:
    """
    Control characters have no name in the Unicode database.
    """
    assert [
        "U+0430 CYRILLIC SMALL LETTER A",
        "U+0000 NULL",
        "U+0001 CONTROL CHARACTER",
        "U+FEFF ZERO WIDTH NO-BREAK SPACE",
    ] == [described(each) for each in "\u0430\0\x01\ufeff"]
