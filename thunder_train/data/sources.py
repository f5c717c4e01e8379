"""Reads the rows of a source of any kind: correction reports, ASR rows, conversations, plain text.

Input: the files that a `config.dataset.Source` names.  Output: a stream of usable rows; a `Ledger` has the others.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import msgspec

from thunder_train.config.dataset import Source
from thunder_train.core.files import expand
from thunder_train.data import asr_rows, correction_reports, dataset_folder, folder, kinds, simple_rows
from thunder_train.data.readers import paths
from thunder_train.data.rows import SPLIT_WORDS, Ledger, Row


class Place(NamedTuple):
    """The folder in which a source's paths lie; of a repository of the hub the commit that this is."""

    folder: Path
    commit: str = ""

    def declared(self, source: Source) -> dict[str, str]:
        """What a manifest states of a source's repository: nothing for files of this machine."""
        return {"repo": source.repo, "revision": source.revision, "commit": self.commit} if source.repo else {}


def read(source: Source, root: Path, ledger: Ledger, all_sources: Sequence[Source] = ()) -> Iterator[Row]:
    """The rows of a source, in file order. Raises all problems of a file at its end.

    root: the folder in which its paths lie.  ledger receives the number of rows of each file, and those that are not
    used.  all_sources: those of its dataset.
    """
    return named(_rows(source, root, ledger), source, root, all_sources)


def pairs(source: Source, root: Path, ledger: Ledger) -> asr_rows.Pairs | None:
    """The pairs of a source whose predictions may be read in parts; `named` gives their rows as `read` does."""
    if source.kind not in ("rows", "nemo"):
        return None
    fields = kinds.NEMO | source.fields if source.kind == "nemo" else source.fields
    return asr_rows.opened(replace(source, kind="rows", fields=fields), root, ledger)


def named(rows: Iterator[Row], source: Source, root: Path, all_sources: Sequence[Source] = ()) -> Iterator[Row]:
    """The rows of a source, each with the split that its file's name says where that counts.

    That is in a folder, in a repository, and where the files of a dataset are named as two splits or more.
    """
    is_folder = source.kind != "folder" and (root / source.path).is_dir()
    if source.repo or is_folder:
        above = source.path if is_folder else ""
        return _with_splits_of_names(rows, lambda file: dataset_folder.split_word(file.removeprefix(above)))
    own = [each for each in (*all_sources, source) if not (each.repo or each.split or each.kind == "folder")]
    words = {_word_of_file(path) for each in own for path in expand(each.path, root)}
    is_split = len({SPLIT_WORDS[word] for word in words if word}) > 1
    return _with_splits_of_names(rows, _word_of_file) if is_split else rows


def _word_of_file(path: str) -> str:
    return dataset_folder.split_word(Path(path).name)


def files(source: Source, root: Path) -> list[str]:
    """The files that a source reads, as paths from root. Raises ThunderError if there is none."""
    if source.kind == "folder":
        return [path for parts in folder.files_by_split(source, root).values() for path in parts]
    return [path for pattern in (source.path, source.references) if pattern for path in paths(pattern, root)]


def _with_splits_of_names(rows: Iterator[Row], word: Callable[[str], str]) -> Iterator[Row]:
    """The rows, each with the split that its file's name says if it has none itself. word: of a file, "" if none."""
    word_of: dict[str, str] = {}
    for row in rows:
        if row.file not in word_of:
            word_of[row.file] = word(row.file)
        is_decided = row.own_split or row.given_split or not word_of[row.file]
        yield row if is_decided else msgspec.structs.replace(row, own_split=word_of[row.file])


def _rows(source: Source, root: Path, ledger: Ledger) -> Iterator[Row]:
    if source.kind == "report":
        return correction_reports.read(source, root, ledger)
    if joined := pairs(source, root, ledger):
        return joined.rows()
    if source.kind == "folder":
        return folder.read(source, root, ledger)
    return itertools.chain.from_iterable(
        simple_rows.read(source, path, root, ledger) for path in paths(source.path, root)
    )
