"""Which kind of source fits the fields of a row, and which of its fields may be meant by a canonical one.

Input: a row as its file has it, or the names of its columns.  Output: hints for errors, and the kind of a file whose
source leaves it open.
"""

import difflib
from collections.abc import Collection
from typing import Any

from thunder_train.config.dataset import Source
from thunder_train.core.text import quoted
from thunder_train.data.json_rows import list_members, rows_hint

SHOWN_FIELDS = 8
"""Fields of a row that a hint names."""
LIKE = 0.75
"""Least similarity, as difflib has it, of a name that a hint suggests for another."""
NEMO = {"audio_path": "audio_filepath", "asr_text": "pred_text", "reference_text": "text"}
"""The field map of a NeMo manifest."""
TURNS = ("conversations", "messages", "conversation", "items", "dialogue", "dialog", "chat", "turns")
OTHER_NAMES = {
    "messages": TURNS,
    "conversations": TURNS,
    "prompt": ("question", "query", "instruction", "input", "source", "user", "hyp", "hypothesis", "asr_text"),
    "completion": (
        *("answer", "response", "output", "target", "reply", "assistant", "chosen", "ref", "reference"),
        *("reference_text", "corrected"),
    ),
    "instruction": ("prompt", "question", "query"),
    "output": ("completion", "answer", "response", "target"),
    "text": ("content", "sentence", "transcript", "transcription", "document"),
    "asr_text": (
        *("pred_text", "hyp", "hypothesis", "prediction", "predicted", "pred", "best_hypo", "asr", "whisper_text"),
        *("recognized", "source", "input"),
    ),
    "reference_text": (
        *("ref", "reference", "ground_truth", "truth", "target", "gold", "transcript", "transcription", "sentence"),
        *("normalized_text", "label", "output", "text"),
    ),
    "input": ("context", "passage"),
    "audio_path": ("audio_filepath", "audio_file", "wav", "file_name", "filename", "file", "path", "audio"),
    "segment_id": ("utt_id", "utterance_id", "utt", "uttid", "segment", "key", "id"),
}
"""Canonical field -> what others call it, the likeliest first."""

PAIRS = {
    "rows": ("asr_text", "reference_text"),
    "alpaca": ("instruction", "output"),
    "completions": ("prompt", "completion"),
}
"""Kind -> its two texts."""
OPTIONAL = {"rows": ("audio_path",), "alpaca": ("input",)}
"""Kind -> what else a suggested field map names."""


def fitting(row: dict[str, Any]) -> tuple[str, str]:
    """The kind whose fields a row has under their own names, and those fields; ("", "") if there is none."""
    if isinstance(turns := row.get("conversations"), list) or "conversations" in row:
        first = turns[0] if isinstance(turns, list) and turns and isinstance(turns[0], dict) else {}
        shape = " (from/value)" if "from" in first else " (role/content)" if "role" in first else ""
        return "sharegpt", f"conversations{shape}"
    for kind, fields in (
        ("completions", ("prompt", "completion")),
        ("chatml", ("messages",)),
        ("alpaca", ("instruction", "output")),
        ("nemo", ("text", "pred_text")),
        ("rows", ("asr_text", "reference_text")),
        ("text", ("text",)),
    ):
        if all(name in row for name in fields):
            return kind, " and ".join(fields)
    return "", ""


def hint(
    row: dict[str, Any],
    missing: list[str],
    source: Source | None,
    columns: Collection[str] = (),
    is_header: bool = False,
) -> str:
    """What to do about fields that a row lacks.

    columns: fields that the source reads.  is_header: the row's names are a header line, which may be missing.
    """
    names = [name for name, value in row.items() if is_header or value is not None]
    if not names:
        return add(missing)
    declared = dict(source.fields.items() - NEMO.items()) if source else {}
    astray = [f"{name} = {quoted(declared[name])}" for name in missing if name in declared]
    if astray and not is_header:
        return f"correct fields: {', '.join(astray)} leads to nothing in this row"
    kind, fields = fitting(row)
    if source and kind and source.kind == "folder":
        return f"this row has {fields}: write all rows of a file in one way"
    is_reference = kind == "text" and source is not None and source.kind == "rows"  # more likely than another kind
    if source and kind and kind != source.kind and source.kind != "report" and not is_reference:
        return f'its rows have {fields}: set kind = "{kind}"'
    if "chosen" in names and "completion" in missing:
        return 'its rows compare answers: set fields = { completion = "chosen" } to learn those'
    mapped = _mapped(row, names, missing, source)
    if mapped:
        return mapped
    if nested := _nested(row, missing):
        return nested
    if is_header:
        return "map them in fields; if that is a row, add a line with the names of the columns before it"
    if len(row) > 1 and all(isinstance(value, dict) for value in row.values()):
        return "write a list of rows instead of an object that holds them by name, or map them in fields"
    others = [name for name in paths(row) if name not in missing and name not in columns]
    addition = _addition(missing, source)
    return f"{addition}, or map {_them(missing)} in fields; the row has {shown(others, ', ')}" if others else addition


def add(missing: list[str]) -> str:
    """That fields are to be added."""
    return f"add {_them(missing)}"


def _them(names: list[str]) -> str:
    return "it" if len(names) == 1 else "them"


def _addition(missing: list[str], source: Source | None) -> str:
    """That fields are to be added, by the names that the source reads them from."""
    if source and source.kind == "rows" and not source.references and missing == ["reference_text"]:
        return "set references to the file that holds them"
    names = [source.fields.get(name, name) for name in missing] if source else missing
    return add(missing) if names == missing else f"add {', '.join(names)}"


def _nested(row: dict[str, Any], missing: list[str]) -> str:
    """What to do about lists of objects in a row, which may be rows or turns; "" if there is none."""
    members = list_members(row)
    turns = next((name for name, items in members.items() if {"role", "from"} & items[0].keys()), "")
    if "preferred_output" in row:
        return "its rows compare answers: write messages that end with the one to learn"
    if turns and "parts" in members[turns][0]:
        return f"{quoted(turns)[1:-1]} holds turns as Gemini writes them: write messages with role and content"
    if turns:
        return f"set {as_toml({missing[0]: turns}, row)}"
    return rows_hint([*members]) if members else ""


def _mapped(row: dict[str, Any], names: list[str], missing: list[str], source: Source | None) -> str:
    """A field map that fills the missing fields, perhaps of another kind; "" if no names are alike."""
    taken = {dotted.partition("[")[0] for dotted in source.fields.values()} if source else set()
    meant = near(missing, [name for name in names if name not in taken])
    has_lists = any(_is_texts(row[name]) for field, name in meant.items() if field in ("prompt", "completion"))
    kind = source.kind if source else "report"
    if len(meant) == len(missing) and not has_lists:
        return f"set {as_toml(meant | _optional(kind, row, names, meant), row)}"
    others = {
        "rows": kind not in ("rows", "nemo", "report") and "asr_text" not in missing,
        "alpaca": kind in ("chatml", "sharegpt", "completions") and "instruction" in names,
        "completions": kind in ("chatml", "sharegpt", "alpaca", "text") and not has_lists,
    }
    for other in (name for name, is_likely in others.items() if is_likely):
        texts = near(PAIRS[other], names)
        if len(texts) == len(PAIRS[other]):
            texts |= _optional(other, row, names, texts)
            return f'set kind = "{other}" and {as_toml(texts, row)}, or map {" and ".join(missing)} in fields'
    return ""


def _optional(kind: str, row: dict[str, Any], names: list[str], meant: dict[str, str]) -> dict[str, str]:
    """Further fields of a kind that a row has under other names, as `near` gives them."""
    absent = [field for field in OPTIONAL.get(kind, ()) if field not in names]
    free = [name for name in names if name not in meant.values() and isinstance(row[name], str | None)]
    return near(absent, free)


def paths(row: dict[str, Any]) -> list[str]:
    """The fields of a row, those of objects in it as dotted paths."""
    pairs = ((name, value if isinstance(value, dict) and value else {"": None}) for name, value in row.items())
    return [f"{name}.{member}".rstrip(".") for name, members in pairs for member in members]


def near(missing: Collection[str], names: list[str]) -> dict[str, str]:
    """Canonical field -> the name that is probably meant, each name once."""
    meant: dict[str, str] = {}
    lower = {name.lower().strip().replace(" ", "_").replace("-", "_"): name for name in reversed(names)}
    for field in missing:
        alike = difflib.get_close_matches(field, lower, n=1, cutoff=LIKE)
        for other in (field, *OTHER_NAMES.get(field, ()), *alike):
            if other in lower and lower[other] not in meant.values():
                meant[field] = lower[other]
                break
    return meant


def is_in_header(name: str, header: list[str], source: Source | None) -> bool:
    """Whether a table has the column that a canonical field is read from."""
    dotted = source.fields.get(name, name) if source else name
    return dotted in header or dotted.partition(".")[0].partition("[")[0] in header


def shown(names: list[str], between: str) -> str:
    """Names for an error message."""
    more = len(names) - SHOWN_FIELDS
    return quoted(between.join(names[:SHOWN_FIELDS]))[1:-1] + (f" and {more} more" if more > 0 else "")


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, str) for item in value)


def as_toml(meant: dict[str, str], row: dict[str, Any]) -> str:
    """A field map as TOML. A list of texts is not asr_text, but all hypotheses."""
    fields = {
        "hypotheses" if field == "asr_text" and _is_texts(row.get(name)) else field: name
        for field, name in meant.items()
    }
    listed = ", ".join(f'{field} = "{quoted(name)[1:-1]}"' for field, name in fields.items() if field != name)
    return f"fields = {{ {listed} }}"
