"""The rows of the data set nko-nano and their simulated errors."""

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from examples.nko_nano import lexicon, rows
from examples.nko_nano.lexicon import nko
from tests.helpers.project_copy import PROJECT
from thunder_train import ThunderError

RNG = random.Random(0)  # noqa: S311
SOURCES = PROJECT / "data/sources"


def test_the_committed_rows_are_those_that_the_program_makes(tmp_path: Path) -> None:
    """
    The files are an output: to change rows, change the program; this test fails after a change by hand.
    """
    rows.main(["--output", str(tmp_path)])

    for name in (rows.PREDICTIONS, rows.REFERENCES):
        assert (SOURCES / name).read_bytes() == (tmp_path / name).read_bytes()


def test_no_sentence_occurs_twice_and_none_belongs_to_the_base() -> None:
    """
    Rows are split by their text: a sentence in two splits would be a leak.
    """
    _, references = rows.rows(300, seed=1)
    texts = [lexicon.normal(row["reference_text"]) for row in references]

    assert len(texts) == len(set(texts))
    assert not any(map(lexicon.is_for_base, texts))


def test_rows_follow_the_row_contract() -> None:
    """
    The data stage reads them as it reads users' rows: same required fields, joined by audio_path.
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
        (rows._repeat, "ye", "ye ye"),
        (rows._swap(rows.VOWELS), "bɛ", "be"),
        (rows._swap(rows.VOICES), "ko", "go"),
        (rows._swap(rows.VOICES), "nin", ""),
    ],
)
def test_each_kind_of_error(kind: Callable[[str, random.Random], str], word: str, expected: str) -> None:
    """
    The kinds that real recognisers of N'Ko make; "" for a word that cannot have the error.
    """
    assert kind(nko(word), RNG) in map(nko, expected.split("|"))


def test_no_error_makes_another_word_of_the_lexicon() -> None:
    """
    An error that leaves a correct sentence cannot be recognised, and would teach the model to change correct texts.
    """
    lexicon_words = set(lexicon.words())
    for _ in range(300):
        text = lexicon.sentence(RNG, for_base=False)
        heard = rows.add_errors(text, 1, RNG)
        new = set(heard.split(" ")) - set(text.split(" "))
        assert not new & lexicon_words, (text, heard)


def test_without_errors_the_text_stays() -> None:
    """
    Rows without errors teach the model to leave correct texts unchanged.
    """
    assert nko("n ye malo san") == rows.add_errors(nko("n ye malo san"), 0, RNG)


def test_a_number_of_rows_below_one_is_refused(tmp_path: Path) -> None:
    """
    The data stage would refuse an empty file, but later and far from the cause.
    """
    with pytest.raises(ThunderError) as caught:
        rows.main(["--output", str(tmp_path), "--rows", "0"])

    assert "--rows: must be 1 or more, not 0" == str(caught.value)


def test_some_rows_are_routed_to_the_wrong_partition() -> None:
    """
    As by a real router: otherwise the partition would reveal how many errors a row has.
    """
    predictions, _ = rows.rows(400, seed=2)
    stable = [json.dumps(row) for row in predictions if row["partition"] == "stable" and row["cer_edits"]]

    assert 0 < len(stable) < 40
