"""What a dataset refuses: leaks, wrong templates, empty splits, repeated ids."""

from pathlib import Path
from typing import Any

import pytest

from tests.helpers.inputs import report_row
from tests.helpers.material import built, report_rows
from thunder_train import ThunderError


def refusal(folder: Path, report: Any, template: str = "Text: {{ asr_text }}", **given: Any) -> str:
    """The text of the error that such a dataset gives."""
    with pytest.raises(ThunderError) as error:
        built(folder, report, template, **given)
    assert not (folder / "out").exists()
    return str(error.value)


def test_reference_in_the_prompt_is_an_error(tmp_path: Path) -> None:
    """A model that sees the answer learns to copy it, and every score is wrong."""
    assert (
        "thunder.toml: datasets.nko.template: the prompt of in:02 holds its reference; "
        "take it out of the system text, the template or the telemetry"
    ) == refusal(tmp_path, report_rows(), "Like «ߢߌ»: {{ asr_text }}")


def test_reference_in_telemetry_is_an_error(tmp_path: Path) -> None:
    """A field map can carry the reference into telemetry; the prompt is what counts."""
    report = [row | {"t": {"c": row["r"] if row["n"] == "05" else ""}} for row in report_rows()]

    assert "the prompt of in:05 holds its reference" in refusal(tmp_path, report, "{{ asr_text }} {{ telemetry.c }}")


def test_reference_within_the_hypothesis_is_no_leak(tmp_path: Path) -> None:
    """A recogniser that repeats itself says the right words too; so does a perfect one."""
    report = [row | {"h": f"{row['r']} {row['r']}" if row["n"] < "10" else row["r"]} for row in report_rows()]

    assert {} == built(tmp_path, report)["dropped"]


def test_reference_is_found_as_words_only(tmp_path: Path) -> None:
    """A one-letter reference inside another word is no leak."""
    report = [*report_rows(), report_row(0, n="x", r="ߊ")]

    assert {} == built(tmp_path, report, "ߊߋߌ: {{ asr_text }}")["dropped"]


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (
            "{{ reference_text }}",
            "prompt.j2: row in:00: 'reference_text' is undefined; a prompt may use asr_text, partition and telemetry",
        ),
        (
            "{{ telemetry.speed }}",
            "prompt.j2: row in:00: 'dict object' has no attribute 'speed'; "
            "a prompt may use asr_text, partition and telemetry",
        ),
        (
            "\n{% if %}",
            "prompt.j2:2: is not a Jinja template: Expected an expression, got 'end of statement block'; "
            "correct the line",
        ),
    ],
)
def test_wrong_template_is_refused(tmp_path: Path, template: str, expected: str) -> None:
    """A template sees hypothesis-side fields only, and a misspelt one is an error, not an empty string."""
    assert expected == refusal(tmp_path, report_rows(), template)


def test_template_runs_in_a_sandbox(tmp_path: Path) -> None:
    """A dataset from elsewhere must not run code here."""
    assert "unsafe" in refusal(tmp_path, report_rows(), "{{ ().__class__.__bases__[0].__subclasses__() }}")


@pytest.mark.parametrize(("valid", "test", "split"), [(0.0, 0.5, "valid"), (0.5, 0.5, "train")])
def test_empty_split_is_an_error(tmp_path: Path, valid: float, test: float, split: str) -> None:
    """No training without rows, and no choice of a checkpoint without validation."""
    assert (
        f"thunder.toml: datasets.nko.valid: no row of 20 fell into the {split} split; "
        "add rows, or change valid, test or split_seed"
    ) == refusal(tmp_path, report_rows(), valid=valid, test=test)


def test_two_rows_with_one_id_are_an_error(tmp_path: Path) -> None:
    """Predictions are matched to rows by id."""
    assert (
        "thunder.toml: datasets.nko.sources: 2 rows are called 'in:00'; "
        "give each row its own id and each source its own file name"
    ) == refusal(tmp_path, [*report_rows(), report_row(0, h="ߤ")])


def test_failed_build_leaves_the_old_files(tmp_path: Path) -> None:
    """Yesterday's valid dataset is better than half of today's."""
    built(tmp_path, report_rows())
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}

    with pytest.raises(ThunderError):
        built(tmp_path, report_rows(), "{{ nothing }}")

    assert before == {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
