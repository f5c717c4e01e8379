"""A small dataset's facts for the audit page, and a reader of HTML pages."""

import re
from html.parser import HTMLParser
from typing import Any

from tests.helpers.project_copy import PROJECT
from thunder_train.data import audit

TEMPLATE = PROJECT / "templates" / "audit.html.j2"
SPREAD = {"min": 12, "median": 20.5, "max": 1024, "total": 4096}
VOID = {"meta", "br", "input"}
NKO = re.compile("[\u07c0-\u07ff]")


def message(role: str, content: str, **changes: Any) -> dict[str, Any]:
    """One message of a row."""
    return {
        "role": role, "content": content, "name": "", "tool_call_id": "", "calls": [], "is_trained": True, **changes
    }  # fmt: skip


def example(**changes: Any) -> dict[str, Any]:
    """One row as the examples of a page hold it."""
    row = {
        "id": "gate:1",
        "split": "train",
        "partition": "boundary",
        "decision": "accepted",
        "asr_text": "ߊߟߐ",
        "reference_text": "ߊߟߎ",
        "target_text": "ߊߟߎ",
        "messages": [message("user", "Mend: ߊߟߐ"), message("assistant", "ߊߟߎ")],
        "more_messages": 0,
        "tools": [],
        "more_tools": 0,
        "is_text": False,
        "is_silent": False,
        "edits": 1,
    }
    return row | changes


def facts(**changes: Any) -> dict[str, Any]:
    """A small dataset's facts."""
    return {
        "dataset": "tiny",
        "orthography": "bridge-toneless",
        "notes": [],
        "given": {},
        "unused_fields": {},
        "invisible_characters": {},
        "stray_letters": [],
        "splits": {"valid": {"rows": 1, "characters": SPREAD}, "train": {"rows": 3, "characters": SPREAD}},
        "counts": {
            "source": {"gate": {"train": 3, "valid": 1}},
            "decision": {"accepted": {"train": 1}, "": {"train": 2, "valid": 1}},
        },
        "histograms": {"characters of the answer": [[0, 9, 8], [10, 19, 2], [20, 29, 0]]},
        "cer": {"train": 0.31251, "valid": None},
        "dropped": {"exact duplicate": 1, "empty target": 2},
        "dropped_examples": {
            "empty target": [
                {"file": "a.jsonl", "line": 7, "id": "a:7", "also_at": "", "href": "../../a.jsonl#L7"},
                {"file": "b.jsonl", "line": 1, "id": "b:1", "also_at": "a.jsonl:9", "href": ""},
            ]
        },
        "orthography_findings": [{"what": "doubled marks", "count": 1200}],
        "near_duplicates": {
            "count": 1,
            "is_complete": True,
            "examples": [
                {
                    "a": {"id": "gate:1", "split": "train", "text": "ߊߟߎ ߊ"},
                    "b": {"id": "gate:2", "split": "valid", "text": "ߊߟߎ ߋ"},
                    "similarity": 0.95,
                }
            ],
        },
        "examples": [example()],
    } | changes


EMPTY = facts(
    splits={},
    counts={"source": {}},
    histograms={"characters of the answer": []},
    cer={},
    dropped={},
    dropped_examples={},
    orthography_findings=[],
    near_duplicates={"count": 0, "is_complete": True, "examples": []},
    examples=[],
)


def page(**changes: Any) -> str:
    """The page of the small dataset."""
    return audit.page(facts(**changes), TEMPLATE)


class Page(HTMLParser):
    """Reads a page: its text, its tags, and any N'Ko letter that stands outside `<bdi lang="nqo" dir="rtl">`."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text, self.loose, self.tags = "", "", set[str]()
        self.open: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Opens a tag, unless it is one that never closes."""
        self.tags.add(tag)
        if tag not in VOID:
            self.open.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        """Closes the tag that was opened last, or fails."""
        assert tag == self.open.pop()[0]

    def handle_data(self, data: str) -> None:
        """Collects text; that of a script is none."""
        if self.open and self.open[-1][0] == "script":
            return
        self.text += data
        if ("bdi", {"lang": "nqo", "dir": "rtl"}) not in self.open:
            self.loose += "".join(NKO.findall(data))
