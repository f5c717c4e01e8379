"""Tokens made before, kept on disk under the hash of all that they were made of.

Reads and writes <folder>/<key>.tokens: 32 bytes of sha256, then a safetensors file. A damaged file counts as none.
"""

import functools
import hashlib
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import safetensors.numpy
import transformers

from thunder_train.core import files

Row = tuple[str, tuple[int, ...], tuple[tuple[int, int], ...]]
"""Row id, tokens, spans of targets."""
DIGEST = 32
"""Bytes of the checksum."""


def place(folder: Path | None, data: Path, tokenizer: Any, settings: dict[str, Any]) -> Path | None:
    """Where the tokens of a data file lie. None without a folder, and for what is not sure to give the same tokens
    again: a tokenizer that cannot tell what it is made of, a chat template that writes today's date.

    The path of the data is part of the key, for rows without an id are called after it.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    template = getattr(tokenizer, "chat_template", None)
    if folder is None or backend is None or "strftime_now" in str(template) or not data.is_file():
        return None
    made_of = {
        "data": [str(data), files.sha256(data)],
        "tokenizer": _digest(backend),
        "template": [template, str(getattr(tokenizer, "_chat_template", None)), tokenizer.has_thinking],
        "special": [tokenizer.bos_token_id, sorted(tokenizer.eos_token_ids)],
        "versions": [jinja2.__version__, transformers.__version__],
        "settings": settings,
    }
    return folder / f"{files.digest(made_of)}.tokens"


@functools.lru_cache(maxsize=1)
def _digest(backend: Any) -> str:
    """Hash of all that a tokenizer is made of: 30 MB of JSON for Gemma, so it is made once."""
    return hashlib.sha256(backend.to_str().encode()).hexdigest()


def load(path: Path) -> list[Row]:
    """The rows that `save` wrote; none when the file is missing or damaged."""
    if not path.is_file():
        return []
    data = path.read_bytes()
    if hashlib.sha256(data[DIGEST:]).digest() != data[:DIGEST]:
        return []
    arrays = safetensors.numpy.load(data[DIGEST:])
    ids = json.loads(arrays["ids"].tobytes())
    rows = np.split(arrays["tokens"], arrays["ends"][:-1])
    spans = np.split(arrays["spans"], arrays["span_ends"][:-1])
    return [
        (name, tuple(row.tolist()), tuple((start, end) for start, end in pairs.tolist()))
        for name, row, pairs in zip(ids, rows, spans, strict=True)
    ]


def save(path: Path, rows: Sequence[Row]) -> None:
    """Write rows, if any, whole or not at all. Raises ThunderError when the folder cannot be written."""
    if not rows:
        return  # np.split makes one of none
    ids = json.dumps([name for name, _, _ in rows]).encode()
    arrays = {
        "ids": np.frombuffer(ids, np.uint8),
        "tokens": np.array([token for _, tokens, _ in rows for token in tokens], np.int32),
        "ends": np.array(list(itertools.accumulate(len(tokens) for _, tokens, _ in rows)), np.int64),
        "spans": np.array([span for _, _, spans in rows for span in spans], np.int32).reshape(-1, 2),
        "span_ends": np.array(list(itertools.accumulate(len(spans) for _, _, spans in rows)), np.int64),
    }
    data = safetensors.numpy.save(arrays)
    files.write_bytes(path, hashlib.sha256(data).digest() + data)
