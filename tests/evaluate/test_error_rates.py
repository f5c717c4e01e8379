"""Error rates counted by hand."""

import random
from typing import Any

import pytest

from thunder_train.config.profiles import PROFILES, Profile
from thunder_train.core import files
from thunder_train.evaluate import error_rates
from thunder_train.evaluate.error_rates import count, described, kinds, rate

DEFAULT = PROFILES["cer-codepoint-nfc-pooled"]
PAIRS = [
    ("ߊߓߞߏ", "ߊߓ ߞߏ"),  # a lost space: 1 edit in 5, 0 in 4 without spaces
    ("ߞߏߞߏߞߏ", "ߞߏ"),  # a loop: 4 edits in 2
    ("ߛߊߓߊߛߊߓߊ", "ߛߊߓߊߛߊߓߊ"),  # right: 0 in 8
]
"""(text, reference): rows on which the definitions differ."""


def counted(name: str, pairs: list[tuple[str, str]]) -> float | None:
    """The rate of pairs under a profile."""
    return rate([count(text, reference, PROFILES[name]) for text, reference in pairs], PROFILES[name])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cer-codepoint-nfc-pooled", (1 + 4 + 0) / (5 + 2 + 8)),
        ("cer-spaceless-raw-pooled", (0 + 4 + 0) / (4 + 2 + 8)),
        ("cer-codepoint-raw-clamped-per-row", (1 / 5 + 1 + 0) / 3),
        ("cer-codepoint-raw-per-row", (1 / 5 + 4 / 2 + 0) / 3),
        ("wer-nfc-pooled", (2 + 1 + 0) / (2 + 1 + 1)),
    ],
)
def test_one_data_set_has_as_many_rates_as_definitions(name: str, expected: float) -> None:
    """The users' repository used three of these under the one name CER: a decision could depend on the choice."""
    assert pytest.approx(expected, abs=1e-15) == counted(name, PAIRS)


def test_default_is_pooled_code_points_in_nfc_with_spaces() -> None:
    """The main figure must keep its meaning, so this test fixes its fields."""
    assert Profile(
        name="cer-codepoint-nfc-pooled",
        unit="code point",
        spaces="kept",
        normalisation="NFC",
        marks="kept",
        average="pooled",
        clamp=False,
    ) == next(iter(PROFILES.values()))


def test_the_hash_covers_every_field() -> None:
    """Rates of different definitions are not comparable: a changed field must change the hash."""
    hashes = {described(each)["sha256"] for each in PROFILES.values()}
    fields = described(DEFAULT)
    others: list[dict[str, Any]] = [{"unit": "word"}, {"spaces": "collapsed"}, {"normalisation": "NFKC"}, {"limit": 3}]
    others += [{"marks": "stripped"}, {"case": "folded"}, {"punctuation": "removed"}, {"average": "per row"}]

    assert len(PROFILES) == len(hashes)
    assert len(others) == len({described(Profile(name=DEFAULT.name, **keys))["sha256"] for keys in others})
    assert fields.pop("sha256") == files.digest(fields)


def test_rates_of_earlier_runs_stay_comparable() -> None:
    """Keys that came later are no part of a definition that does not use them: its hash is the one it always had."""
    hashes = [described(each)["sha256"][:12] for each in PROFILES.values()]

    assert [
        "377081a6a8bb",
        "0ac8db7cd596",
        "496544e0efaf",
        "a72801ee36d5",
        "f7a716d199dc",
        "d94db5f758fa",
        "298689aa2c3f",
    ] == hashes[:7]


@pytest.mark.parametrize(
    ("text", "reference", "expected"),
    [
        ("ߊ ߓߐ", "ߊߓߐ", (1, 3)),
        ("ߓߊ", "ߓߊߣ", (1, 3)),
        ("ߞߏ", "ߞߋ", (1, 2)),
        ("", "ߞߋ", (2, 2)),
        ("ߞߋ", "", (2, 0)),
        ("ߞߋ", "ߞߋ", (0, 2)),
    ],
)
def test_spaces_and_letters_count_one_edit_each(text: str, reference: str, expected: tuple[int, int]) -> None:
    """The default keeps spaces: a missing space is an error like any other."""
    assert expected == count(text, reference, DEFAULT)[:2]


@pytest.mark.parametrize(("name", "expected"), [(DEFAULT.name, 0), ("cer-codepoint-raw-per-row", 2)])
def test_marks_typed_in_another_order_are_no_error_after_nfc(name: str, expected: int) -> None:
    """Tone before nasal mark is the same text as nasal before tone; the historical profiles count two edits."""
    tone_first, nasal_first = "ߊ\u07eb\u07f2", "ߊ\u07f2\u07eb"

    assert expected == count(tone_first, nasal_first, PROFILES[name]).edits


@pytest.mark.parametrize(
    ("name", "expected"),
    [(DEFAULT.name, (2, 5)), ("cer-cluster-nfc-pooled", (1, 2)), ("cer-toneless-nfc-pooled", (0, 2))],
)
def test_a_letter_without_its_two_marks(name: str, expected: tuple[int, int]) -> None:
    """Two code points are missing, one cluster is wrong, and without marks there is no error."""
    assert expected == count("ߊߓ\u07eb", "ߊ\u07f2\u07ebߓ\u07eb", PROFILES[name])[:2]


def test_toneless_also_strips_the_mark_of_a_composed_letter() -> None:
    """French words in Bambara text have letters that NFC composes with their accent."""
    assert (0, 4) == count("cafe", "café", PROFILES["cer-toneless-nfc-pooled"])[:2]


def test_errors_are_pooled_over_all_characters() -> None:
    """A one-letter answer has little weight: errors are pooled, not averaged per answer."""
    pairs = [("ߊ", "ߋ"), ("ߊߋߌߍߎߏߐߓߔ", "ߊߋߌߍߎߏߐߓߔ")]

    assert (0.1, 0.5) == (counted(DEFAULT.name, pairs), counted("cer-codepoint-raw-per-row", pairs))


def test_rate_can_exceed_one() -> None:
    """The rate of a text much longer than its reference is not limited to 1."""
    assert 2.0 == counted(DEFAULT.name, [("ߊߋ", "ߌ")])


@pytest.mark.parametrize("name", PROFILES)
def test_no_row_means_no_rate(name: str) -> None:
    """A rate over nothing is unknown, not zero."""
    assert counted(name, []) is None


def test_an_empty_reference_has_rate_0_or_1() -> None:
    """As in the historical definitions: 0 for an empty text, 1 for any other."""
    name = "cer-codepoint-raw-per-row"

    assert (0.0, 1.0) == (counted(name, [("", "")]), counted(name, [("ߊߋߌ", "")]))


def random_pairs() -> list[tuple[str, str]]:
    """200 (text, reference) of N'Ko words, most of them in both."""
    draw = random.Random(0)  # noqa: S311
    words = [
        "".join(draw.choices("ߊߋߌߍߎߏߐߓߔߕߖߗ\u07eb", k=draw.randint(1, 6))).lstrip("\u07eb") or "ߊ" for _ in range(60)
    ]
    references = [" ".join(draw.choices(words, k=draw.randint(1, 8))) for _ in range(200)]
    return [(" ".join(draw.choices([*words[:9], *each.split()], k=6)), each) for each in references]


@pytest.mark.parametrize(
    ("name", "process"), [(DEFAULT.name, "process_characters"), ("wer-nfc-pooled", "process_words")]
)
def test_pooled_rates_and_kinds_of_edits_equal_jiwer(name: str, process: str) -> None:
    """An independent implementation gives the same numbers, the rate to the last bit."""
    jiwer = pytest.importorskip("jiwer", reason="jiwer is a development dependency: pip install -e '.[dev]'")
    texts, references = map(list, zip(*random_pairs(), strict=True))
    theirs = getattr(jiwer, process)(references, texts)
    rows = [count(text, reference, PROFILES[name]) for text, reference in random_pairs()]

    assert (theirs.cer if name == DEFAULT.name else theirs.wer) == rate(rows, PROFILES[name])
    assert {"sub": theirs.substitutions, "del": theirs.deletions, "ins": theirs.insertions} == kinds(rows)


@pytest.mark.parametrize(
    ("text", "reference", "expected"),
    [
        ("ߊߋߐ", "ߊߌߐ", (1, 0, 0)),
        ("ߊߐ", "ߊߌߐ", (0, 1, 0)),
        ("ߊߌߌߐ", "ߊߌߐ", (0, 0, 1)),
        ("", "ߊߌ", (0, 2, 0)),
        ("ߊߌ", "", (0, 0, 2)),
        ("ߊߌ", "ߊߌ", (0, 0, 0)),
    ],
)
def test_kinds_by_hand(text: str, reference: str, expected: tuple[int, int, int]) -> None:
    """An adapter that leaves words out and one that invents some can have one rate: the counts tell them apart."""
    assert expected == tuple(kinds([count(text, reference, DEFAULT)]).values())


@pytest.mark.parametrize("name", PROFILES)
def test_kinds_add_up_to_the_edits(name: str) -> None:
    """No edit is of no kind, whatever the profile; over no row there is none."""
    rows = [count(text, reference, PROFILES[name]) for text, reference in random_pairs()]

    assert sum(row.edits for row in rows) == sum(kinds(rows).values())
    assert {"sub": 0, "del": 0, "ins": 0} == kinds([])


@pytest.mark.parametrize(
    ("keys", "text", "expected"),
    [
        ({}, " Don't,  Été ", " Don't,  Été "),
        ({"case": "folded"}, "STRASSE Straße İ", "strasse strasse i\u0307"),
        ({"punctuation": "removed"}, "k'a, (ߞߊ߸ ߞߋ߹) $5!", "ka ߞߊ ߞߋ $5"),
        ({"spaces": "collapsed"}, "  a \t b\n", "a b"),
        ({"spaces": "removed"}, "  a \t b\n", "ab"),
        ({"normalisation": "NFKC"}, "ﬁ ²", "fi 2"),
        ({"marks": "stripped", "case": "folded"}, "Été ߊ\u07f2", "ete ߊ"),
        ({"punctuation": "removed", "spaces": "collapsed"}, "a - b", "a b"),
        ({"normalisation": "bambara-leaderboard"}, " Ń t'à lɔ\u0300n!  a_b ߊ\u07eb", "ń tà lɔn a_b ߊ"),
        ({"normalisation": "whisper-english"}, "It's twenty-one!", "it is 21"),
    ],
)
def test_what_each_key_counts(keys: dict[str, Any], text: str, expected: str) -> None:
    """A key that does nothing would give rates under a name that promises something else."""
    raw = Profile(name="raw", normalisation="none")

    assert expected == "".join(error_rates._units(text, Profile(name="mine", **keys)))
    assert len(expected) == count("", expected, raw).deleted


def test_the_leaderboard_averages_rates_of_at_most_two() -> None:
    """Its published rates are means over rows, of which each counts 2 at most."""
    pairs = [("a b c d e f", "a"), ("i ni ce", "I ni cɛ!"), ("ka", "k'a")]

    assert pytest.approx((2 + 1 / 3 + 0) / 3, abs=1e-15) == counted("wer-bambara-leaderboard", pairs)
    assert pytest.approx((2 + 1 / 7 + 0) / 3, abs=1e-15) == counted("cer-bambara-leaderboard", pairs)


def test_whispers_word_error_rate_forgives_spelling_and_punctuation() -> None:
    """English rates are published so: "twenty one" for "21" is no error there."""
    pairs = [("Mister Smith, it is twenty one.", "mr. smith it's 21"), ("the color", "the colours")]

    assert 1 / (5 + 2) == counted("wer-whisper-english", pairs)
