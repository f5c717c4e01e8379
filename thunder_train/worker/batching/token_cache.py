"""Tokenised rows on disk, in FOLDER/KEY.tokens: 32 bytes of sha256, then a safetensors file.

The key is a hash of everything that decides the tokens. A damaged file counts as missing.
"""

import contextlib
import fcntl
import functools
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import safetensors.numpy
import tokenizers
import transformers

from thunder_train import ThunderError
from thunder_train.core import files
from thunder_train.worker.batching.examples import Examples, of_arrays
from thunder_train.worker.chat import DEFAULTS, TODAY, Chat

CODE = 2
"""Part of the key. Raise it when this package makes other tokens of the same row."""
DIGEST = 32
"""Bytes of the checksum of a file."""


@dataclass(frozen=True)
class Cached:
    """What a file holds. lines: of each row its line in the data file, counted from 0. is_whole: every answer of a row
    has a span, and not only the last. notes: with their rows.
    """

    examples: Examples
    lines: tuple[int, ...]
    is_whole: bool
    notes: tuple[tuple[str, int], ...]


def path_of(folder: Path | None, data: Path, chat: Chat) -> Path | None:
    """The file for the tokens of a data file. None without a folder, and for a tokenizer that cannot be hashed."""
    tokenizer = chat.tokenizer
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if folder is None or backend is None or not data.is_file():
        return None
    own = [getattr(tokenizer, "chat_template", None), str(getattr(tokenizer, "_chat_template", None))]
    key = {
        "data": [str(data), files.sha256(data)],  # the path too: rows without an id are named after it
        "tokenizer": [_tokenizer_digest(backend), type(chat.wrapped).__name__],
        "template": [chat.template] if chat.template else own,
        "arguments": [dict(DEFAULTS), dict(chat.arguments), TODAY, chat.end_answers],
        "special": [sorted(tokenizer.eos_token_ids), {k: str(v) for k, v in chat.wrapped.special_tokens_map.items()}],
        "versions": [jinja2.__version__, transformers.__version__, tokenizers.__version__],
        "code": CODE,
    }
    return folder / f"{files.digest(key)}.tokens"


@functools.lru_cache(maxsize=1)
def _tokenizer_digest(backend: Any) -> str:
    # Gemma's tokenizer is 30 MB of JSON, and several files are read with it.
    return hashlib.sha256(backend.to_str().encode()).hexdigest()


@contextlib.contextmanager
def alone(path: Path) -> Iterator[None]:
    """One process at a time makes a file: the other ranks of a machine wait for it and read it, then.

    Raises ThunderError when the folder cannot be written.
    """
    lock = path.with_suffix(".lock")
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        opened = lock.open("w")
    except OSError as error:
        raise ThunderError(f"cannot be written: {error.strerror}", where=str(lock), hint="free or unlock it") from error
    with opened:
        with contextlib.suppress(OSError):  # a network disk may have no locks: then each rank tokenises
            fcntl.flock(opened, fcntl.LOCK_EX)  # the system gives it back when this process ends, however it ends
        try:
            yield
        finally:
            # Whoever waits for it reads what was made; whoever comes later makes a lock of its own, and reads as well.
            lock.unlink(missing_ok=True)


def load(path: Path) -> Cached | None:
    """What `save` wrote; None when the file is missing or damaged."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        digest, data = file.read(DIGEST), file.read()
    if hashlib.sha256(data).digest() != digest:
        return None
    # The file is not mapped into memory, though ranks of a machine would share it then: where it is cut, or lost by a
    # network disk, a signal would end the rank without a word.
    arrays = safetensors.numpy.load(data)
    head = json.loads(arrays["head"].tobytes())
    rows = of_arrays(head["ids"], *(arrays[name] for name in ("tokens", "ends", "spans", "span_ends")))
    notes = tuple((note, count) for note, count in head["notes"])
    return Cached(rows, tuple(arrays["lines"].tolist()), head["is_whole"], notes)


def save(path: Path, content: Cached) -> None:
    """Write rows, if any, whole or not at all. Raises ThunderError when the folder cannot be written.

    Rows of all lengths lie in one array, with the position where each ends, so that reading parses no text but the ids.
    content: rows that follow one another in their arrays.
    """
    rows = content.examples
    if not rows:
        return
    head = {"ids": list(rows.ids), "is_whole": content.is_whole, "notes": content.notes}
    arrays = {
        "head": np.frombuffer(json.dumps(head).encode(), np.uint8),
        "lines": np.array(content.lines, np.int64),
        "tokens": rows.tokens,
        "ends": np.ascontiguousarray(rows.places[:, 1]),
        "spans": rows.spans,
        "span_ends": np.ascontiguousarray(rows.span_places[:, 1]),
    }
    data = safetensors.numpy.save(arrays)
    files.write_lines(path, (hashlib.sha256(data).digest(), data))
