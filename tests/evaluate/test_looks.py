"""The ledger of looks: a number for each adapter on the same test rows, and what a look costs."""

import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from thunder_train import ThunderError
from thunder_train.core import files
from thunder_train.evaluate import looks
from thunder_train.evaluate.intervals import paired

TEST, OTHER = files.digest("test"), files.digest("other")


def adapter(number: int) -> str:
    """sha256 of an adapter."""
    return files.digest(number)


def test_each_adapter_on_the_same_rows_is_a_look(tmp_path: Path) -> None:
    """The same adapter, made again, is no other look; other rows have their own count."""
    noted = [looks.note(tmp_path, test, adapter(n)) for test, n in ((TEST, 1), (TEST, 2), (OTHER, 2), (TEST, 1))]

    assert [1, 2, 1, 1] == noted
    assert (2, 3) == (looks.number(tmp_path, TEST, adapter(2)), looks.number(tmp_path, TEST, adapter(9)))
    assert 3 == len((tmp_path / "runs/looks.jsonl").read_text().splitlines())


def test_a_number_stays_once_it_was_given(tmp_path: Path) -> None:
    """A decision that is made again must be the same bytes, whatever was evaluated since."""
    for n in range(5):
        looks.note(tmp_path, TEST, adapter(n))
    before = (tmp_path / "runs/looks.jsonl").read_bytes()

    assert [1, 2, 3, 4, 5] == [looks.note(tmp_path, TEST, adapter(n)) for n in range(5)]
    assert before == (tmp_path / "runs/looks.jsonl").read_bytes()


def test_evaluations_at_the_same_time_get_a_number_each(tmp_path: Path) -> None:
    """Members of a sweep end within the same second."""
    with ThreadPoolExecutor(4) as pool:
        numbers = [*pool.map(looks.note, [tmp_path] * 12, [TEST] * 12, map(adapter, range(12)))]

    assert [*range(1, 13)] == sorted(numbers)


def test_two_histories_that_were_joined_count_together(tmp_path: Path) -> None:
    """Git joins the lines of two branches, and both gave number 2: the next look is the fourth, and theirs stay."""
    looks.write(tmp_path, [looks.Look(adapter(n), number, TEST) for n, number in ((1, 1), (2, 2), (3, 2))])

    assert [4, 2, 2] == [looks.note(tmp_path, TEST, adapter(n)) for n in (4, 3, 2)]


def test_a_reproduction_is_the_look_that_it_was(tmp_path: Path) -> None:
    """In its clean folder one line stands for all looks before."""
    looks.write(tmp_path, [looks.Look(looks.ELSEWHERE, 41, TEST)])

    assert (42, 1) == (looks.note(tmp_path, TEST, adapter(1)), looks.note(tmp_path, OTHER, adapter(1)))


@pytest.mark.parametrize("line", ['{"adapter": "a", "number": "one", "test": "t"}', '{"adapter": "a"}', "[]"])
def test_a_line_that_is_no_look_is_named(tmp_path: Path, line: str) -> None:
    """The file is committed, so anybody may have edited it."""
    files.write_text(tmp_path / "runs/looks.jsonl", f"{line}\n")

    with pytest.raises(ThunderError, match=r"looks.jsonl:1: is no look: .*; restore the file with git"):
        looks.read(tmp_path)


def test_test_rows_are_known_by_their_texts() -> None:
    """Another prompt, another id or another order makes no new test set; another reference does."""
    row = {"asr_text": "ߊ", "reference_text": "ߋ"}
    rows = [row | {"id": "1", "adapter": "x"}, {"question": "?", "answer": "!", "id": "2"}]

    assert looks.test_rows(rows) == looks.test_rows([rows[1] | {"id": "9"}, rows[0] | {"adapter": "y"}])
    assert looks.test_rows(rows) != looks.test_rows([rows[0] | {"reference_text": "ߌ"}, rows[1]])
    assert "" == looks.test_rows([])


def test_all_looks_together_may_miss_in_5_percent() -> None:
    """Half of the misses look like a gain; the shares of all looks, however many there are, stay below 5 %."""
    assert pytest.approx([0.05, 0.0125, 0.05 / 9]) == [looks.doubt(look) for look in (1, 2, 3)]
    assert 0.041 < math.fsum(looks.doubt(look) / 2 for look in range(1, 100_000)) < 0.05 * math.pi**2 / 12


def test_a_later_look_needs_a_larger_change() -> None:
    """The first look is the 95 % interval itself; both sides of it stretch."""
    assert (-3.0, -1.0) == looks.widened(-2.0, -3.0, -1.0, 50, 1)
    low, high = looks.widened(-2.0, -3.0, -1.5, 50, 100)

    assert pytest.approx(-2 - 2 * (high + 2)) == low
    assert -1.5 < high < -0.5


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["every recording", "a few rows"])
@pytest.mark.parametrize("groups", [20, 50, 200])
def test_adapters_without_effect_get_a_go_in_5_percent_of_projects(kind: str, groups: int) -> None:
    """docs/evaluation.md has this table: the share of projects in which one of the first 1, 10, 100 looks is a GO."""
    runs, most, names = 2000, 100, [str(group) for group in range(groups)]
    random_bits, ours, fixed = np.random.default_rng(0), np.zeros((runs, most), bool), np.zeros((runs, most), bool)
    for run in range(runs):
        weights = random_bits.integers(250, 450, groups)
        before = random_bits.binomial(weights, random_bits.beta(2, 6, groups)).astype(float)
        changes = random_bits.normal(0, 5, (most, groups)).round()
        if kind == "a few rows":
            changes = random_bits.choice([-1.0, 1.0], (most, groups)) * (
                random_bits.random((most, groups)) < 6 / groups
            )
        errors = [before.tolist(), *(before + changes).tolist()]
        _, *intervals = paired(errors, weights.tolist(), names, 1000, seed=run)
        for look, (interval, change) in enumerate(zip(intervals, changes, strict=True), start=1):
            delta, low, high = 100 * float(change.sum() / weights.sum()), interval.delta_low, interval.delta_high
            assert low is not None
            assert high is not None
            ours[run, look - 1] = looks.widened(delta, low, high, groups, look)[1] < 0
            fixed[run, look - 1] = high < 0
    shares = [[each[:, :first].any(axis=1).mean() for first in (1, 10, 100)] for each in (fixed, ours)]
    print(f"| {kind} | {groups} |", *(f"{100 * share:.1f} |" for each in shares for share in each))

    assert max(shares[1]) <= 0.05
