"""Fake hosts: each is a folder, in which a script named ssh runs its commands. rsync is the real one."""

import os
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from thunder_train import ThunderError
from thunder_train.config.load import load
from thunder_train.config.project import Recipe
from thunder_train.core import files, shipped

SSH = """#!/bin/bash
while :; do case "$1" in
  -o | -l) shift 2 ;;
  -*) shift ;;
  *) break ;;
esac; done
host=$1; shift
cd {homes}/"$host" 2>/dev/null || {{ echo "ssh: connect to host $host port 22: No route to host" >&2; exit 255; }}
export HOME=$PWD
exec sh -c "$*"
"""
THUNDER = """
[project]
recipes = ["one"]
[clusters.macs]
folder = {folder}
[[clusters.macs.hosts]]
ssh = "mac4"
ips = ["10.0.5.1"]
[[clusters.macs.hosts]]
ssh = "mac5"
ips = ["10.0.5.2"]
[models.tiny]
{model}
[datasets.rows]
template = "prompt.j2"
[[datasets.rows.sources]]
kind = "chatml"
path = "rows.jsonl"
evidence_kind = "smoke"
"""
RECIPE = 'cluster = "macs"\nmodel = "tiny"\ndataset = "rows"\n[train]\nnum_iters = 4\n'
COMMIT = "0123456789abcdef0123456789abcdef01234567"
WEIGHTS = {"config.json": b"{}", "model.safetensors": bytes(range(256)) * 64}


class Site:
    """A project at home, and two hosts, mac4 and mac5, with their own home folders."""

    def __init__(self, folder: Path, place: str = "work/thunder train") -> None:
        self.home, self.homes, self.place, self.tools = folder / "home", folder / "homes", place, folder / "tools"
        for path in (self.home / "recipes", self.homes / "mac4", self.homes / "mac5", self.tools):
            path.mkdir(parents=True)
        self.tool("ssh", SSH.format(homes=shlex.quote(str(self.homes))))

    def tool(self, name: str, script: str) -> None:
        """Put a program first on the PATH of home and hosts."""
        (self.tools / name).write_text(script)
        (self.tools / name).chmod(0o755)

    def there(self, host: str, path: str = "") -> Path:
        """A path in a host's project, seen from here."""
        return self.homes / host / self.place / path

    def write(self, path: str, text: str) -> Path:
        """Write a file of the project at home."""
        (self.home / path).parent.mkdir(parents=True, exist_ok=True)
        (self.home / path).write_text(text)
        return self.home / path

    def recipe(self, name: str = "one", model: str = 'kind = "nano"') -> Recipe:
        """A recipe whose cluster is the two hosts, with its rows and a locked model."""
        self.write("thunder.toml", THUNDER.format(folder=_toml(self.place), model=model))
        self.write(f"recipes/{name}.toml", RECIPE)
        self.write("recipes/one.toml", RECIPE)
        for row in ("train", "valid", "test"):
            self.write(f"data/rows/{row}.jsonl", f"{row}\n")
        self.write("data/rows/manifest.json", "{}\n")
        recipe = load(self.home).recipes[name]
        place = {"nano": "runs/models/tiny/files", "path": recipe.model.path}.get(recipe.model.kind)
        hashes = []
        for file, content in WEIGHTS.items():
            path = (self.home / place if place else self.hub()) / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            hashes.append({"path": file, "bytes": len(content), "sha256": files.sha256(path)})
        lock = {"files": hashes, "commit": COMMIT}
        files.write_json(self.home / "runs/models/tiny/model.lock.json", lock)
        return recipe

    def hub(self) -> Path:
        """The snapshot of me/tiny in the hub cache at home."""
        return self.home.parent / "hub/models--me--tiny/snapshots" / COMMIT

    def tree(self, host: str) -> dict[str, bytes]:
        """Every file of a host's project except those in .thunder/."""
        top = self.there(host)
        paths = {str(path.relative_to(top)): path for path in sorted(top.rglob("*")) if path.is_file()}
        return {name: path.read_bytes() for name, path in paths.items() if not name.startswith(".thunder/")}


def _toml(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def site(folder: Path, monkeypatch: pytest.MonkeyPatch, place: str = "work/thunder train") -> Site:
    """A site whose ssh is first on PATH, and whose hub cache is its own."""
    # this project has its own copy of all that the package ships
    monkeypatch.setattr(shipped, "FOLDER", folder / "home")
    monkeypatch.setattr(shipped, "PACKAGE", folder / "home/thunder_train")
    project = Site(folder, place)
    monkeypatch.setenv("PATH", f"{project.tools}:{os.environ['PATH']}")
    for name in ("HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder / "hub"))
    return project


def code(site: Site) -> Site:
    """The site with some code, a template and a `doit` script."""
    site.write("thunder_train/a.py", "A = 1\n")
    site.write("templates/prompts/correct.j2", "Correct it.\n")
    site.write("doit", "#!/bin/sh\n").chmod(0o755)
    return site


def refusal(act: Callable[..., object], *words: object) -> list[str]:
    """The lines of the ThunderError that a call raises."""
    with pytest.raises(ThunderError) as caught:
        act(*words)
    return str(caught.value).splitlines()


def real(name: str) -> str:
    """The path of a program."""
    return subprocess.run(["which", name], capture_output=True, text=True, check=True).stdout.strip()
