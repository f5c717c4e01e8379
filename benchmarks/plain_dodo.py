"""Plain doit with the same graph: same tasks, inputs and targets, doit's own checker and database, short work.

The benchmark copies it as dodo.py beside graph.json, which lists the tasks.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from doit.tools import config_changed

STAGES: dict[str, list[dict[str, Any]]] = {}
for node in json.loads(Path("graph.json").read_text()):
    STAGES.setdefault(node["name"].partition(":")[0], []).append(node)

DOIT_CONFIG = {"default_tasks": [node["name"] for node in STAGES["manifest"]], "verbosity": 2}


def work(node: dict[str, Any]) -> None:
    """Write a hash of the inputs into each target."""
    content = hashlib.sha256(node["name"].encode())
    for path in node["inputs"]:
        content.update(Path(path).read_bytes())
    for path in node["targets"]:
        Path(path).write_text(content.hexdigest() + "\n")


def creator(stage: str) -> Callable[[], Iterator[dict[str, Any]]]:
    """A task creator of one stage."""

    def tasks() -> Iterator[dict[str, Any]]:
        for node in STAGES[stage]:
            yield {
                "name": node["name"].partition(":")[2],
                "actions": [(work, [node])],
                "file_dep": node["inputs"],
                "targets": node["targets"],
                "task_dep": node["after"],
                "uptodate": [config_changed(node)],
            }

    return tasks


globals().update({f"task_{stage}": creator(stage) for stage in STAGES})
