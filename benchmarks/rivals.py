"""The other build tools: how each is installed, gets the graph, and runs."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import dvc_files
from graphs import PROJECT, Node

PACKAGES = {"ninja": "ninja==1.13.2", "snakemake": "snakemake==9.27.1", "dvc": "dvc==3.67.1"}
DOIT = [sys.executable, "-m", "doit"]


@dataclass(frozen=True)
class Tool:
    """A build tool. write(folder, nodes): writes its build file; largest: largest number of recipes to measure."""

    name: str
    argv: list[str]
    write: Callable[[Path, list[Node]], None]
    largest: int = 500

    def version(self) -> str:
        """The first line of its version output, with its name."""
        argv = [*self.argv[:3], "--version"] if self.argv[:3] == DOIT else [self.argv[0], "--version"]
        line = subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()[0]
        return line if self.name.lower() in line.lower() else f"{self.name} {line}"


def plain() -> Tool:
    """doit without this package."""
    return Tool("plain doit", DOIT, write_plain)


def make() -> list[Tool]:
    """The system's make, if it has one."""
    program = shutil.which("make")
    return [Tool("make", [program, "--silent"], write_make)] if program else []


def install(home: Path, largest_dvc: int) -> list[Tool]:
    """All rivals: make from the system, the others each in its own environment below `home`."""
    ninja, snakemake, dvc = (str(_program(home, name)) for name in PACKAGES)
    return [
        *make(),
        Tool("ninja", [ninja, "-j1", "--quiet"], write_ninja),
        Tool("Snakemake", [snakemake, "--cores=1", "--quiet=all"], write_snakemake),
        Tool("DVC", [dvc, "repro", "--quiet"], partial(write_dvc, dvc, environment(home)), largest_dvc),
    ]


def environment(home: Path) -> dict[str, str]:
    """Variables that keep the tools' own files in the benchmark's folder, and let Python keep what it compiles.

    A developer may have set PYTHONDONTWRITEBYTECODE: then each run would compile our modules again, but not doit's.
    """
    places = {
        name: str(home / "home" / name) for name in ("DVC_SITE_CACHE_DIR", "DVC_GLOBAL_CONFIG_DIR", "XDG_CACHE_HOME")
    }
    return {"PYTHONPATH": "", "PYTHONDONTWRITEBYTECODE": "", "DVC_NO_ANALYTICS": "1", **places}


def write_plain(folder: Path, nodes: list[Node]) -> None:
    """The dodo.py of plain doit, which reads graph.json."""
    shutil.copy(PROJECT / "benchmarks" / "plain_dodo.py", folder / "dodo.py")


def write_make(folder: Path, nodes: list[Node]) -> None:
    """A Makefile with grouped targets."""
    lines = [f"all: {' '.join(_wanted(nodes))}"]
    for node in nodes:
        after = " ".join(_order(node, nodes))
        lines += [f"{' '.join(node.targets)} &: {' '.join(node.inputs)} | {after}", f"\t{_command(node)}"]
    (folder / "Makefile").write_text("\n".join(lines) + "\n")


def write_ninja(folder: Path, nodes: list[Node]) -> None:
    """build.ninja with one rule."""
    lines = ["rule run", "  command = $do"]
    for node in nodes:
        after = " ".join(_order(node, nodes))
        lines += [f"build {' '.join(node.targets)}: run {' '.join(node.inputs)} || {after}", f"  do = {_command(node)}"]
    (folder / "build.ninja").write_text("\n".join([*lines, f"default {' '.join(_wanted(nodes))}"]) + "\n")


def write_snakemake(folder: Path, nodes: list[Node]) -> None:
    """A Snakefile in the usual style: a rule per stage, with a wildcard for the recipe."""
    recipes = sorted(node.recipe for node in nodes if node.stage == "train")
    first = [node for node in nodes if node.stage in ("data", "model") or node.recipe == recipes[0]]

    def general(paths: list[str]) -> str:
        return ", ".join(repr(path.replace(recipes[0], "{recipe}")) for path in paths)

    lines = [f"RECIPES = {recipes!r}", "rule all:", f"    input: expand([{general(_wanted(first))}], recipe=RECIPES)"]
    for node in first:
        command = "cat /dev/null {input} | cksum | tee {output} > /dev/null"
        lines += [f"rule {node.stage}:", f"    input: {general(node.inputs)}", f"    output: {general(node.targets)}"]
        lines += [f"    shell: {command!r}"]
    (folder / "Snakefile").write_text("\n".join(lines) + "\n")


def write_dvc(program: str, variables: dict[str, str], folder: Path, nodes: list[Node]) -> None:
    """dvc.yaml and all results of DVC's first build, which would take minutes to hours to run."""
    subprocess.run([program, "init", "--no-scm", "--quiet"], cwd=folder, check=True, env={**os.environ, **variables})
    (folder / ".dvc" / "config").write_text(
        "[core]\n    no_scm = True\n    analytics = false\n    check_update = false\n"
    )
    dvc_files.write(folder, nodes, {node.name: _command(node) for node in nodes})


def _command(node: Node) -> str:
    """Short work in the shell: the content of the targets depends on the inputs."""
    inputs, targets = " ".join(node.inputs), " ".join(node.targets)
    return f"cat /dev/null {inputs} | cksum | tee {targets} > /dev/null"


def _wanted(nodes: list[Node]) -> list[str]:
    return [path for node in nodes if node.stage == "manifest" for path in node.targets]


def _order(node: Node, nodes: list[Node]) -> list[str]:
    """Targets that must exist first although the task does not read them."""
    first = {other.name: other.targets[0] for other in nodes}
    return [first[name] for name in node.after]


def _program(home: Path, name: str) -> Path:
    """A tool in its own environment, which is created at the first use."""
    folder = home / "environments" / PACKAGES[name]
    if not (folder / "done").is_file():
        print(f"installing {PACKAGES[name]}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        subprocess.run([folder / "bin" / "python", "-m", "pip", "install", "--quiet", PACKAGES[name]], check=True)
        (folder / "done").touch()
    return folder / "bin" / name
