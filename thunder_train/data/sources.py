"""Reads the rows of a source of any kind: correction reports, ASR rows, conversations, completions, plain text.

Input: the files that a `config.dataset.Source` names.  Output: a stream of usable rows; a `Ledger` has the others.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from thunder_train.config.dataset import Source
from thunder_train.data import asr_rows, correction_reports, folder, simple_rows
from thunder_train.data.readers import paths
from thunder_train.data.rows import Ledger, Row

NEMO = {"audio_path": "audio_filepath", "asr_text": "pred_text", "reference_text": "text"}
"""The field map of a NeMo manifest."""


def read(source: Source, root: Path, ledger: Ledger) -> Iterator[Row]:
    """The rows of a source, in file order. Raises all problems of a file at its end.

    ledger receives the number of rows of each file, and those that are not used.
    """
    if source.kind == "report":
        return correction_reports.read(source, root, ledger)
    if source.kind == "rows":
        return asr_rows.read(source, root, ledger)
    if source.kind == "nemo":
        return asr_rows.read(replace(source, kind="rows", fields=NEMO | source.fields), root, ledger)
    if source.kind == "folder":
        return folder.read(source, root, ledger)
    return _simple(source, root, ledger)


def _simple(source: Source, root: Path, ledger: Ledger) -> Iterator[Row]:
    for path in paths(source.path, root):
        yield from simple_rows.read(source, path, root, ledger)
