"""A small dataset that several tests build."""

import json
from pathlib import Path
from typing import Any

from tests.helpers.inputs import FIELDS, report_row
from tests.helpers.inputs import source as any_source
from thunder_train.config.dataset import Dataset, Source
from thunder_train.data import audit, builder
from thunder_train.data.rows import GROUP_KEYS

CODE = "0" * 64
"""Stands for the hash of the code that decides the rows."""


def source(**given: Any) -> Source:
    """A source; by default a report at in.json."""
    return any_source(**{"kind": "report", "path": "in.json", "fields": FIELDS} | given)


def report_rows() -> list[dict[str, Any]]:
    """Twenty rows of a report."""
    return [report_row(number) for number in range(20)]


def built(folder: Path, report: Any, template: str = "Text: {{ asr_text }}", **given: Any) -> dict[str, Any]:
    """The manifest of a dataset built below a folder from one report: a third for validation, a third for test."""
    (folder / "in.json").write_text(json.dumps(report), encoding="utf-8")
    (folder / "prompt.j2").write_text(template, encoding="utf-8")
    return build(dataset(**given), folder, folder / "out")


def dataset(**given: Any) -> Dataset:
    """A dataset; by default of one report, a third for validation, a third for test."""
    values: dict[str, Any] = {
        "name": "nko",
        "sources": (source(),),
        "system": "Correct.",
        "templates": ("prompt.j2",),
        "orthography": "bridge-toneless",
        "orthography_table": {},
        "split_seed": 0,
        "valid": 0.3,
        "test": 0.3,
        "group_keys": (*GROUP_KEYS, "text"),
        "max_dropped": 0.5,
        "provenance": "",
    }
    return Dataset(**values | given)


def build(dataset: Dataset, root: Path, out: Path) -> dict[str, Any]:
    """The manifest of a dataset that is written into out with its audit page."""
    manifest = builder.build(dataset, root, out, CODE, audit.build)
    audit.render(out)
    return manifest
