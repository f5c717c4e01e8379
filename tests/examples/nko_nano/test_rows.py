"""The made-up recogniser behind the data set nko-nano."""

import json
import random

import pytest

from examples.nko_nano import lexicon, rows
from examples.nko_nano.lexicon import nko
from tests.helpers.project_copy import PROJECT
from thunder_train import ThunderError

DICE = random.Random(0)  # noqa: S311
SOURCES = PROJECT / "data/sources"


def test_the_committed_rows_are_those_that_the_program_makes(tmp_path):
    """
    The files are an output: who wants other rows changes the program, and a hand-made change is found here.
    """
    rows.main(["--output", str(tmp_path)])

    for name in (rows.PREDICTIONS, rows.REFERENCES):
        assert (SOURCES / name).read_bytes() == (tmp_path / name).read_bytes()


def test_no_sentence_occurs_twice_and_none_is_the_bases():
    """
    Rows are held out by their text: one sentence in two splits would be a leak.
    """
    _, references = rows.rows(300, seed=1)
    texts = [lexicon.normal(row["reference_text"]) for row in references]

    assert len(texts) == len(set(texts))
    assert not any(map(lexicon.is_for_base, texts))


def test_rows_keep_the_row_contract():
    """
    The data stage reads them as it reads the users' rows: same required fields, and a join by audio_path.
    """
    predictions, references = rows.rows(3, seed=0)
    required = {"audio_path", "split", "script", "mode", "asr_text", "ctc_confidence", "partition"}

    assert all(required <= row.keys() for row in predictions)
    assert [row["audio_path"] for row in predictions] == [row["audio_path"] for row in references]
    assert "synthetic_noise" == predictions[0]["mode"]


@pytest.mark.parametrize(
    ("kind", "word", "expected"),
    [
        (rows._lose_nasal, "den", "de"),
        (rows._lose_nasal, "in", ""),
        (rows._lose_vowel, "misi", "mis|msi"),
        (rows._split, "malo", "ma lo"),
        (rows._say_twice, "ye", "ye ye"),
        (rows._swap(rows.VOWELS), "bɛ", "be"),
        (rows._swap(rows.VOICES), "ko", "go"),
        (rows._swap(rows.VOICES), "nin", ""),
    ],
)
def test_each_kind_of_error(kind, word, expected):
    """
    The kinds told of real recognisers (DOMAIN.md 4); "" where a word cannot have the error.
    """
    assert kind(nko(word), DICE) in map(nko, expected.split("|"))


def test_no_error_makes_another_word_of_the_lexicon():
    """
    An error that leaves a right sentence could be mended by nobody, and would teach to change right texts.
    """
    known = set(lexicon.words())
    for _ in range(300):
        text = lexicon.sentence(DICE, for_base=False)
        heard = rows.hear(text, 1, DICE)
        new = set(heard.split(" ")) - set(text.split(" "))
        assert not new & known, (text, heard)


def test_without_errors_the_text_stays():
    """
    Rows that are right already teach to leave right texts alone.
    """
    assert nko("n ye malo san") == rows.hear(nko("n ye malo san"), 0, DICE)


def test_a_number_of_rows_below_one_is_refused(tmp_path):
    """
    An empty file would be refused later, by the data stage, and further from its cause.
    """
    with pytest.raises(ThunderError) as caught:
        rows.main(["--output", str(tmp_path), "--rows", "0"])

    assert "--rows: must be 1 or more, not 0" == str(caught.value)


def test_partitions_are_told_from_the_hypothesis_side():
    """
    Some are misjudged, as by a real router: otherwise the partition would tell how many errors a row has.
    """
    predictions, _ = rows.rows(400, seed=2)
    stable = [json.dumps(row) for row in predictions if row["partition"] == "stable" and row["cer_edits"]]

    assert 0 < len(stable) < 40
