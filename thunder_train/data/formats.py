"""The format of a source file: JSON, a text table, or a table with types (Parquet, Arrow).

Input: a file.  Output: its format by its first bytes, and by its name where several formats begin alike.
"""

import re
from pathlib import Path

from thunder_train import ThunderError
from thunder_train.core.text import quoted
from thunder_train.data import foreign, packed

JSON, TABLE, TYPED = "json", "table", "typed"
JSON_NAMES = (".jsonl", ".json", ".ndjson", ".jsonlines", ".jl")
TABLE_NAMES = (".csv", ".tsv", ".tab", ".psv")
TYPED_NAMES = (".parquet", ".arrow", ".feather", ".ipc")
PROSE_NAMES = ("", ".txt", ".text", ".md", ".trn", ".ref", ".hyp")
TYPED_STARTS = (b"PAR1", b"ARROW1", b"\xff\xff\xff\xff")

OLD_MAC = re.compile(rb"\r[^\s]")


def form(path: str, root: Path) -> str:
    """JSON, TABLE or TYPED. Errors: as `packed.head`, and a file whose format neither bytes nor name tell."""
    head = packed.head(path, root)
    name = suffix(path)
    if head.startswith(TYPED_STARTS) or (name in TYPED_NAMES and not head):
        return TYPED
    if OLD_MAC.search(head) and b"\n" not in head and not foreign.is_binary(head):
        raise ThunderError("has the line ends of old Macs, CR alone", where=path, hint="save it with LF at line ends")
    start = head.lstrip()
    if start[:1] in (b"{", b"[") or name in JSON_NAMES:
        if start and start[:1] not in (b"{", b"[") and not foreign.is_binary(head):
            line = quoted(start.partition(b"\n")[0].decode(errors="replace").strip())
            hint = "write an object a line or a list of objects; call it .csv or .tsv if it is a table"
            raise ThunderError(f"is not JSON: it begins with {line}", where=path, hint=hint)
        return JSON
    if name in TYPED_NAMES:
        what = f"is not {'a Parquet' if name == '.parquet' else 'an Arrow'} file, although its name says so"
        raise ThunderError(what, where=path, hint=f"{packed.COPY_AGAIN}, or correct its name")
    if name in TABLE_NAMES:
        return TABLE
    hint = f"call it {', '.join((*JSON_NAMES[:2], *TABLE_NAMES[:2]))} or .parquet as its content is"
    if name in PROSE_NAMES:
        hint += '; write a line of text as {"text": "..."}, a line `ID TEXT` as {"feat_id": "...", "asr_text": "..."}'
    raise ThunderError("is of an unknown format", where=path, hint=hint)


def suffix(path: str) -> str:
    """The end of a file's name that tells its format, in small letters: that before .gz and the like."""
    name = Path(path)
    return Path(name.stem if name.suffix.lower() in packed.SUFFIXES else name.name).suffix.lower()
