"""What was written where nothing was said: rows whose reference was given and is empty.

Input: predictions and the texts of each condition.  Output: the "silence" part of eval.json.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from thunder_train.core.text import nfc


def is_silent(row: dict[str, Any]) -> bool:
    """Whether nothing was said in a row. A row that merely lacks a reference is not silent."""
    return bool(row.get("silent"))


def invented(rows: Sequence[dict[str, Any]], texts: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """{"rows": silent rows, "conditions": for each, how many texts are not empty and how many code points they have}.

    texts: condition -> the text of each row. Empty without a silent row.
    """
    silent = [number for number, row in enumerate(rows) if is_silent(row)]
    if not silent:
        return {}
    written = {condition: [nfc(each[number].strip()) for number in silent] for condition, each in texts.items()}
    return {
        "rows": len(silent),
        "conditions": [
            {"condition": condition, "not_empty": sum(map(bool, each)), "code_points": sum(map(len, each))}
            for condition, each in written.items()
        ],
    }
