"""A folder of given splits: mlx-lm's train.jsonl, valid.jsonl, test.jsonl, and files of Hugging Face's names.

Input: the folder that a source of kind `folder` names.  Output: its rows, each with the split of its file. What a file
holds is known by the fields of its first row; all its rows must be of that kind.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from thunder_train import ThunderError
from thunder_train.config.dataset import Source
from thunder_train.data import chat_shapes, dataset_folder, foreign, kinds, packed, simple_rows
from thunder_train.data.field_map import FieldMap
from thunder_train.data.formats import JSON_NAMES, TABLE_NAMES, TYPED_NAMES
from thunder_train.data.readers import Reader
from thunder_train.data.rows import SPLIT_WORDS, Ledger, Row
from thunder_train.data.splits import SPLITS

SHARD = re.compile(r"[-_.]?\d+([-_]of[-_]\d+)?([-_][0-9a-f]{8,})?", re.IGNORECASE)
"""What may follow the word for a split: the number of a part, as in train-00000-of-00002."""
ENDS = (*JSON_NAMES, *TABLE_NAMES, *TYPED_NAMES, *packed.SUFFIXES)
FIELDS = frozenset(field for shape in chat_shapes.SHAPES.values() for field in shape.__struct_fields__)


def read(source: Source, root: Path, ledger: Ledger) -> Iterator[Row]:
    """The rows of the folder's files: train, valid, test."""
    keeps = source.split != "divide"
    name = Path(source.path.rstrip("/")).name
    for split, paths in files_by_split(source, root).items():
        label = f"{name}-{split}".replace(".", "_").lstrip("-")
        for path in paths:
            kind = _kind(source, path, root)
            yield from simple_rows.read(source, path, root, ledger, kind, label, split if keeps else "")


def files_by_split(source: Source, root: Path) -> dict[str, list[str]]:
    """Split -> its files, sorted. Raises ThunderError for a folder without a train file, and for rivals of a file."""
    foreign.refuse_address(source.path)
    folder = root / source.path
    if not folder.is_dir():
        what = "is no folder" if folder.exists() else "is missing"
        hint = "name the folder of train.jsonl, valid.jsonl and test.jsonl"
        raise ThunderError(what, where=source.path, hint=hint)
    if source.split not in ("", "divide"):
        hint = 'leave split out, or set "divide" to split the rows anew'
        raise ThunderError(f"split is {source.split!r}, but the files say it", where=source.path, hint=hint)
    names = sorted(each.name for each in folder.iterdir() if each.is_file() and not each.name.startswith("."))
    by_split = {split: [name for name in names if _split(name) == split] for split in SPLITS}
    if not any(by_split.values()):
        by_split = {split: _below(folder, split) for split in SPLITS}
    for split, chosen in by_split.items():
        if len(chosen) > 1 and not all(_word(name)[1] for name in chosen if "/" not in name):
            hint = f"keep one file for {split}, or number its parts as {split}-1, {split}-2"
            raise ThunderError(f"has {' and '.join(chosen[:4])}", where=source.path, hint=hint)
    if not by_split["train"]:
        raise ThunderError("has no train file", where=source.path, hint=_train_hint(folder, names))
    path = source.path.rstrip("/")
    return {split: [f"{path}/{name}" for name in chosen] for split, chosen in by_split.items() if chosen}


def _below(folder: Path, split: str) -> list[str]:
    """The files in the folders of a split, as DatasetDict.save_to_disk makes them."""
    parts = sorted(
        each.name for each in folder.iterdir() if each.is_dir() and SPLIT_WORDS.get(each.name.lower()) == split
    )
    return [name for part in parts for name in dataset_folder.rows_in(part, folder)]


def _train_hint(folder: Path, names: list[str]) -> str:
    """What to do about a folder without a train file."""
    inner = folder / "data"
    if inner.is_dir() and any(_split(each.name) == "train" for each in inner.iterdir()):
        return "its folder data has one: name that"
    listed = f"; it holds {kinds.shown(names, ', ')}" if names else ""
    return f"call it train.jsonl, beside valid.jsonl and test.jsonl{listed}"


def _word(name: str) -> tuple[str, str]:
    """The split word that a file's name begins with and what follows it, without the ends that tell its format."""
    while (end := Path(name).suffix) and end.lower() in ENDS:
        name = name[: -len(end)]
    word = re.match(r"[A-Za-z]*", name)
    begin = word[0] if word else ""
    return begin.lower(), name[len(begin) :]


def _split(name: str) -> str:
    """The split that a file is, or is a part of; "" for any other file."""
    word, rest = _word(name)
    is_part = not rest or SHARD.fullmatch(rest)
    return SPLIT_WORDS.get(word, "") if is_part and Path(name).suffix.lower() in ENDS else ""


def _kind(source: Source, path: str, root: Path) -> str:
    """The kind of a file, by the fields of its first row."""
    field_map = FieldMap(source, FIELDS, (), is_whole=False)
    reader = Reader(path, root, field_map.columns, source)
    first = next(reader.mapped(field_map), None)
    if first is None:
        reader.finish(Ledger())
        raise ThunderError("is empty", where=path, hint="add rows, or remove the file")
    line, values = first
    kind, _ = kinds.fitting(values)
    if kind in chat_shapes.SHAPES:
        return kind
    hint = f"mlx-lm knows messages, prompt and completion, text; this has {kinds.shown([*reader.raw], ', ')}"
    raise ThunderError("has rows of no kind that holds its own prompt", where=reader.where(line), hint=hint)
