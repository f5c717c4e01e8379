"""Answers to rows of a chat, which have neither hypothesis nor reference, but an answer of their own.

Input: predictions.  Output: the "chat" part of eval.json.
"""

from collections.abc import Sequence
from typing import Any

from thunder_train.core.text import nfc

EXAMPLES = 5
"""Maximum number of rows that a report shows."""


def is_chat(row: dict[str, Any]) -> bool:
    """Whether a row of predictions.jsonl belongs to a chat: there is nothing to correct in it."""
    return "question" in row


def compared(predictions: Sequence[dict[str, Any]], models: Sequence[str]) -> dict[str, Any]:
    """{"rows", "exact": model -> answers equal to the row's own after NFC, "examples": the first rows}.

    Empty without a row of a chat.
    """
    rows = [row for row in predictions if is_chat(row)]
    if not rows:
        return {}
    return {
        "rows": len(rows),
        "exact": {model: sum(nfc(row[model]) == nfc(row["answer"]) for row in rows) for model in models},
        "examples": [{name: row[name] for name in ("id", "question", "answer", *models)} for row in rows[:EXAMPLES]],
    }
