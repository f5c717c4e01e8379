"""Writes the results of a DVC build: targets, dvc.yaml, dvc.lock and its cache."""

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from graphs import Node


def write(folder: Path, nodes: list[Node], commands: Mapping[str, str]) -> None:
    """Write a project that DVC considers up to date. commands: by name of node."""
    stages, lock = ["stages:"], ["schema: '2.0'", "stages:"]
    for node in nodes:
        for path in node.targets:
            (folder / path).write_text(f"{node.name} {path}\n")
    for node in nodes:
        head = [f"  {node.name.replace(':', '-')}:", f"    cmd: {json.dumps(commands[node.name])}"]
        stages += [*head, *_section("deps", [[path] for path in node.inputs])]
        stages += _section("outs", [[path] for path in node.targets])
        lock += [*head, *_section("deps", [_locked(folder, path) for path in sorted(node.inputs)])]
        lock += _section("outs", [_locked(folder, path) for path in sorted(node.targets)])
        for path in node.targets:
            _keep(folder, path)
    (folder / "dvc.yaml").write_text("\n".join(stages) + "\n")
    (folder / "dvc.lock").write_text("\n".join(lock) + "\n")


def _section(name: str, entries: list[list[str]]) -> list[str]:
    lines = [
        f"    - {line}" if number == 0 else f"      {line}" for entry in entries for number, line in enumerate(entry)
    ]
    return [f"    {name}:", *lines] if entries else []


def _locked(folder: Path, path: str) -> list[str]:
    data = (folder / path).read_bytes()
    return [f"path: {path}", "hash: md5", f"md5: {_md5(data)}", f"size: {len(data)}"]


def _keep(folder: Path, path: str) -> None:
    """Copy the target into DVC's cache, under its hash."""
    sha = _md5((folder / path).read_bytes())
    blob = folder / ".dvc" / "cache" / "files" / "md5" / sha[:2] / sha[2:]
    blob.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(folder / path, blob)


def _md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()
