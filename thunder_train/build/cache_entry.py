"""An entry of the run cache: which outputs a stage had, by name, hash and size. Anybody may have written it.

Reads and writes actions/<key>.json. It is one line of JSON that holds its own key and a digest of the rest.
"""

from collections.abc import Collection, Mapping
from typing import Annotated

import msgspec

from thunder_train.core import files

SCHEMA = "thunder.action/2"
Sha256 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]


class Output(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One file."""

    sha256: Sha256
    bytes: Annotated[int, msgspec.Meta(ge=0)]


class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All files of one action."""

    schema: str
    key: str
    outputs: Annotated[dict[str, Output], msgspec.Meta(max_length=1000)]
    digest: Sha256


def encode(key: str, outputs: Mapping[str, tuple[str, int]]) -> bytes:
    """An entry in bytes. outputs: {name: (sha256, size)}."""
    entry = {"schema": SCHEMA, "key": key, "outputs": {n: {"sha256": s, "bytes": b} for n, (s, b) in outputs.items()}}
    return files.json_line({**entry, "digest": files.digest(entry)}).encode()


def decode(data: bytes, key: str, limit_bytes: int, targets: Collection[str] | None = None) -> Entry:
    """The entry of a key. Raises ValueError, with what is wrong, for anything that `encode` did not write.

    limit_bytes: most bytes of all files together. targets: the names that it must have; None for any.
    """
    try:
        entry = msgspec.json.decode(data, type=Entry)
        rest = {name: value for name, value in msgspec.to_builtins(entry).items() if name != "digest"}
        actual_digest = files.digest(rest)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise ValueError(f"no entry: {str(error)[:100]}") from None
    if entry.schema != SCHEMA or entry.key != key or entry.digest != actual_digest:
        raise ValueError("another version, another key or a damaged text")
    if not all(map(files.is_inside, entry.outputs)):
        raise ValueError("a path that leads out of the project")
    if targets is not None and {*targets} != {*entry.outputs}:
        raise ValueError("other files than this stage makes")
    if sum(output.bytes for output in entry.outputs.values()) > limit_bytes:
        raise ValueError("more bytes than the cache may hold")
    return entry
