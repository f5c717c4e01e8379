"""A dataset from its sources: split, rendered, deduplicated, and the same bytes every time."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.inputs import FIELDS, report_row
from tests.helpers.material import CODE, build, built, dataset, report_rows, source
from tests.helpers.project_copy import PROJECT
from thunder_train import ThunderError
from thunder_train.config.load import load
from thunder_train.core import code_hash, files
from thunder_train.core.paths import DATA
from thunder_train.core.stat_cache import StatCache
from thunder_train.data.splits import fraction
from thunder_train.pipeline.graph import DATA_CODE


def written(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """The rows of each split."""
    return {name: files.read_jsonl(folder / "out" / f"{name}.jsonl") for name in ("train", "valid", "test")}


def refusal(folder: Path, report: Any, template: str = "Text: {{ asr_text }}", **given: Any) -> str:
    """The text of the error that such a dataset gives."""
    with pytest.raises(ThunderError) as error:
        built(folder, report, template, **given)
    assert not (folder / "out").exists()
    return str(error.value)


def test_shipped_dataset_has_the_rows_of_the_first_run(tmp_path: Path) -> None:
    """16 train and 4 validation rows, as the first Thunder Train's smoke run had."""
    manifest = build(load(PROJECT).datasets["agp-nko-corrections"], PROJECT, tmp_path)

    assert {"train": 16, "valid": 4, "test": 6} == {name: each["rows"] for name, each in manifest["splits"].items()}
    assert (["smoke", "synthetic"], {"rejected without a reference": 5}) == (
        manifest["evidence_kinds"],
        manifest["dropped"],
    )


def test_shipped_test_rows_can_all_be_scored(tmp_path: Path) -> None:
    """A test row without a reference has no error rate."""
    build(load(PROJECT).datasets["agp-nko-corrections"], PROJECT, tmp_path)

    assert all(row["reference_text"] for row in files.read_jsonl(tmp_path / "test.jsonl"))


def test_row_is_what_the_worker_reads(tmp_path: Path) -> None:
    """The format of a data row, whole."""
    built(tmp_path, report_rows())

    row = next(row for split in written(tmp_path).values() for row in split if row["id"] == "in:03")

    assert {
        "id": "in:03",
        "messages": [
            {"role": "system", "content": "Correct."},
            {"role": "user", "content": "Text: ߣߍ"},
            {"role": "assistant", "content": "ߢߍ"},
        ],
        "partition": "boundary",
        "asr_text": "ߣߍ",
        "reference_text": "ߢߍ",
        "source": "in",
        "group": "in:03",
    } == row


def test_same_inputs_give_the_same_bytes(tmp_path: Path) -> None:
    """A committed manifest must come out again, to the byte, whatever the order of the source."""
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
    manifests = [built(folders[0], report_rows()), built(folders[1], report_rows()[::-1])]

    assert manifests[0]["splits"] == manifests[1]["splits"]
    for name in ("train.jsonl", "valid.jsonl", "test.jsonl"):
        first, second = ((folder / "out" / name).read_bytes() for folder in folders)
        assert first == second


def test_manifest_has_the_hash_of_every_file(tmp_path: Path) -> None:
    """Anyone with a manifest can check its files."""
    manifest = built(tmp_path, report_rows())

    for name, split in manifest["splits"].items():
        content = (tmp_path / "out" / f"{name}.jsonl").read_bytes()
        assert (hashlib.sha256(content).hexdigest(), content.count(b"\n")) == (split["sha256"], split["rows"])
    assert sorted(DATA) == sorted(path.name for path in (tmp_path / "out").iterdir())
    assert manifest == files.read_json(tmp_path / "out" / "manifest.json")
    assert files.sha256(tmp_path / "in.json") == manifest["sources"][0]["files"][0]["sha256"]


def test_code_of_the_rows_includes_the_split_and_no_page(tmp_path: Path) -> None:
    """A change of the split makes other rows; a change of the audit page or of the row counter makes none."""
    hashes = code_hash.hashes(DATA_CODE, StatCache(tmp_path / "stats.sqlite"))
    names = {path.removeprefix("thunder_train/").removesuffix(".py") for path in hashes}

    assert {"data/builder", "data/splits", "data/orthography", "data/near_duplicates", "core/text"} <= names
    assert not names & {"data/audit", "core/html", "core/console", "core/paths", "pipeline/graph"}
    assert {"code": CODE, "module": "thunder_train.data.builder"} == built(tmp_path, report_rows())["builder"]


def test_manifest_names_no_machine_path(tmp_path: Path) -> None:
    """A manifest is committed: it must read the same on every machine."""
    (tmp_path / "prompt.j2").write_text("{{ asr_text }}")

    built(
        tmp_path,
        report_rows(),
        sources=(source(path=str(tmp_path / "in.json")),),
        templates=(str(tmp_path / "prompt.j2"),),
    )

    assert str(tmp_path) not in (tmp_path / "out" / "manifest.json").read_text()


def test_appended_rows_move_no_row_to_another_split(tmp_path: Path) -> None:
    """Else every growth of a source would leak test rows into training."""
    built(tmp_path, report_rows()[:12])
    before = {row["id"]: name for name, split in written(tmp_path).items() for row in split}

    built(tmp_path, report_rows()[:20])

    after = {row["id"]: name for name, split in written(tmp_path).items() for row in split}
    assert before == {name: after[name] for name in before}


def test_rows_of_one_group_stay_together(tmp_path: Path) -> None:
    """Two segments of one recording in train and test would be a leak."""
    report = [row | {"wav": f"{n % 5}.wav"} for n, row in enumerate(report_rows())]
    built(tmp_path, report, sources=(source(fields=FIELDS | {"audio_path": "wav"}),))

    groups = [{row["group"] for row in split} for split in written(tmp_path).values()]

    assert 5 == sum(len(each) for each in groups)


def test_fraction_is_fixed_by_seed_and_group() -> None:
    """Written out by hand from the rule, so that no refactoring can move the split."""
    expected = int(hashlib.sha256(b"7:a.wav").hexdigest(), 16) / 2**256

    assert expected == pytest.approx(fraction(7, "a.wav"), abs=1e-12)


def test_exact_duplicates_are_dropped_and_counted(tmp_path: Path) -> None:
    """The same question and answer twice would weigh double, or sit in two splits."""
    report = [*report_rows(), report_row(0, n="99"), report_row(1, n="98")]

    manifest = built(tmp_path, report)

    assert (20, {"exact duplicate": 2}) == (sum(s["rows"] for s in manifest["splits"].values()), manifest["dropped"])


def test_marks_in_another_order_are_the_same_text(tmp_path: Path) -> None:
    """NFC comes before the search for duplicates, and into the files."""
    typed = ["ߊ\u07eb\u07f2", "ߊ\u07f2\u07eb"]
    report = [*report_rows(), *(report_row(0, n=f"x{n}", r=text, f=text) for n, text in enumerate(typed))]

    manifest = built(tmp_path, report)

    row = next(row for split in written(tmp_path).values() for row in split if row["id"] == "in:x0")
    assert ({"exact duplicate": 1}, "ߊ\u07f2\u07eb") == (manifest["dropped"], row["messages"][-1]["content"])


def test_rows_that_teach_nothing_are_dropped_and_counted(tmp_path: Path) -> None:
    """An answer to nothing would teach invention, and an empty one silence."""
    report = [*report_rows(), report_row(0, n="a", h=" "), report_row(0, n="b", d=False, h="", r=" ")]

    manifest = built(tmp_path, report, sources=(source(use=("accepted", "corrected")),))

    assert {"the recogniser heard nothing": 1, "empty target": 1} == manifest["dropped"]


def test_empty_test_split_is_allowed(tmp_path: Path) -> None:
    """Losses on validation rows may be all that someone wants."""
    built(tmp_path, report_rows(), test=0.0)

    assert [] == written(tmp_path)["test"]


def test_conversations_are_written_as_they_are(tmp_path: Path) -> None:
    """ChatML from elsewhere needs no template, and gets the dataset's system message if it has none."""
    lines = [
        {"id": str(n), "messages": [{"role": "user", "content": f"q{n}"}, {"role": "assistant", "content": f"a{n}"}]}
        for n in range(20)
    ]
    (tmp_path / "c.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    built(tmp_path, [], sources=(source(kind="chatml", path="c.jsonl", fields={}),), orthography="")

    messages = {row["id"]: row["messages"] for split in written(tmp_path).values() for row in split}
    system = {"role": "system", "content": "Correct."}
    assert {f"c:{line['id']}": [system, *line["messages"]] for line in lines} == messages


# Refusals


def test_words_of_the_template_are_no_leak(tmp_path: Path) -> None:
    """They are the same for every row, and know the reference of none, even where it is one of them."""
    assert {} == built(tmp_path, report_rows(), "Like «ߢߌ»: {{ asr_text }}")["dropped"]


def test_reference_in_telemetry_is_an_error(tmp_path: Path) -> None:
    """A model that sees the answer learns to copy it; a field map can carry it into telemetry."""
    report = [row | {"t": {"c": row["r"] if row["n"] == "05" else ""}} for row in report_rows()]

    assert (
        "thunder.toml: datasets.nko.template: the prompt of in:05 holds its reference; "
        "take it out of the telemetry or the partition"
    ) == refusal(tmp_path, report, "{{ asr_text }} {{ telemetry.c }}")


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
            "prompt.j2: row in:00: 'reference_text' is undefined; "
            "a prompt may use asr_text, hypotheses, partition and telemetry",
        ),
        (
            "{{ telemetry.speed }}",
            "prompt.j2:1: shows telemetry.speed, which no source lets prompts see; if it is known without the "
            'reference, add telemetry = ["speed"] to its source; else take it out',
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


def test_a_split_that_cannot_have_a_row_is_an_error(tmp_path: Path) -> None:
    """No choice of a checkpoint without validation, unless the dataset says that it wants none."""
    report = [report_row(number, v="one recording") for number in range(9)]
    recorded = source(fields={**FIELDS, "video_id": "v"})

    assert (
        "thunder.toml: datasets.nko.valid: no row of 9 fell into the valid split; "
        "add rows of another group, or set valid = 0: then there is no best adapter and no early stopping"
    ) == refusal(tmp_path, report, sources=(recorded,))
    assert [
        "valid has no row: there is no best adapter and no early stopping",
        "test has no row: nothing is scored",
    ] == built(tmp_path, report, sources=(recorded,), valid=0, test=0)["notes"]


def test_two_rows_with_one_id_are_an_error(tmp_path: Path) -> None:
    """Predictions are matched to rows by id."""
    assert (
        "thunder.toml: datasets.nko.sources: 2 rows are called 'in:00'; "
        "give each row its own id and each source its own file name"
    ) == refusal(tmp_path, [*report_rows(), report_row(0, h="ߤ")])
    assert (
        "thunder.toml: datasets.nko.sources: 8 rows are called 'in:00', 'in:01', 'in:02' and 1 more ids; "
        "give each row its own id and each source its own file name"
    ) == refusal(tmp_path, [*report_rows(), *(report_row(number, h="ߤ") for number in range(4))])


def test_failed_build_leaves_the_old_files(tmp_path: Path) -> None:
    """Yesterday's valid dataset is better than half of today's."""
    built(tmp_path, report_rows())
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}

    with pytest.raises(ThunderError):
        built(tmp_path, report_rows(), "{{ nothing }}")

    assert before == {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}


def test_near_duplicates_of_train_and_test_are_counted_apart(tmp_path: Path) -> None:
    """
    Those of train and valid flatter the choice of a checkpoint; those of train and test flatter the result.
    """
    sentence = "the quick brown fox jumps over the lazy dog "
    texts = {"train": ("one", "two"), "valid": ("onf", "xyz"), "test": ("twp", "abc")}
    for split, ends in texts.items():
        rows = [{"feat_id": f"{split}{end}", "asr_text": "a", "reference_text": sentence + end * 3} for end in ends]
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    sources = [source(kind="rows", path=f"{split}.jsonl", split=split, fields={}) for split in texts]
    (tmp_path / "prompt.j2").write_text("{{ asr_text }}", encoding="utf-8")
    manifest = build(dataset(sources=tuple(sources), orthography="", valid=0, test=0), tmp_path, tmp_path / "out")

    assert manifest["near_duplicates"] > manifest["near_duplicates_of_train_and_test"] > 0
