"""How long the build itself takes, against plain doit, make, ninja, Snakemake and DVC on the same graph.

.venv/bin/python benchmarks/build.py [--quick] [--dvc-500] [--write]

--quick: 1 and 50 recipes, ours and plain doit only. --dvc-500: DVC at 500 recipes too, which takes long. --write: put
the tables into benchmarks/README.md. Everything lies below .thunder/bench; the tools are installed there.
"""

import argparse
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import hashing
import rivals
import tables
from graphs import CHAIN, PROJECT, Node, edit_rate, read_graph, recipe_name, write_inputs, write_ours
from measure import Cost, median, remade, stamps, timed
from rivals import Tool

BENCH = PROJECT / ".thunder" / "bench"
TURNS = {1: 31, 50: 21, 500: 7}
"""Recipes -> runs of which the median is taken."""
SLOW_TURNS = {("Snakemake", 1): 5, ("Snakemake", 50): 3, ("Snakemake", 500): 3}
SLOW_TURNS |= {("DVC", 1): 5, ("DVC", 50): 3, ("DVC", 500): 0}
"""Fewer for the slow ones; 0 is one run, and no warm-up before it."""


@dataclass(frozen=True)
class Subject:
    """A tool in a project of `size` recipes, told of the graph."""

    tool: Tool
    folder: Path
    nodes: list[Node]
    size: int

    def run(self) -> Cost:
        """One call of the tool."""
        return timed(self.tool.argv, self.folder, rivals.environment(BENCH))

    def measure(self, what: str, turn: int) -> Cost:
        """One run, and the proof that it remade what it had to and nothing else."""
        number, is_change = turn * 37 % self.size, what == tables.CHANGED
        if is_change:
            edit_rate(self.folder, number, turn)
        before = stamps(self.folder, self.nodes)
        cost = self.run()
        expected = sorted(f"{stage}:{recipe_name(number)}" for stage in CHAIN) if is_change else []
        made = remade(self.nodes, before, stamps(self.folder, self.nodes))
        if made != expected:
            raise SystemExit(f"{self.tool.name}, {self.size} recipes, {what}: remade {made}, expected {expected}")
        return cost


def main() -> None:
    """Measure, print, and write what was asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for flag in ("--quick", "--dvc-500", "--write"):
        parser.add_argument(flag, action="store_true")
    asked = parser.parse_args()
    tools = [Tool(tables.OURS, rivals.DOIT, lambda folder, nodes: None), rivals.plain()]
    if not asked.quick:
        tools += rivals.install(BENCH, largest_dvc=500 if asked.dvc_500 else 50)
    found: tables.Found = {}
    for size, turns in ({1: 3, 50: 3} if asked.quick else TURNS).items():
        found |= measure([tool for tool in tools if size <= tool.largest], size, turns)
    big = None if asked.quick else hashing.measure(BENCH)
    shutil.rmtree(BENCH / "projects")
    text = tables.markdown(found, big, [tool.version() for tool in tools[1:]], sys.argv[1:])
    print(text)
    if asked.write:
        tables.write(PROJECT / "benchmarks" / "README.md", text)


def measure(tools: list[Tool], size: int, turns: int) -> tables.Found:
    """Every tool at one size. They take turns, so that a busy moment of the machine hits them alike."""
    subjects, found = [], {}
    for subject in _subjects(tools, size):
        cost = subject.run()
        if subject.tool.name != "DVC":  # its first build is not run but written
            found[subject.tool.name, size, tables.FIRST] = cost
        subjects.append(subject)
    for what in (tables.NO_OP, tables.CHANGED):
        costs: dict[str, list[Cost]] = {tool.name: [] for tool in tools}
        for turn in range(turns + 1):  # the first one warms up, and is thrown away
            for subject in subjects:
                if turn <= SLOW_TURNS.get((subject.tool.name, size), turns):
                    costs[subject.tool.name].append(subject.measure(what, turn))
        found |= {(name, size, what): median(each[1:] or each) for name, each in costs.items()}
        told = ", ".join(f"{name} {found[name, size, what].wall:.3f} s" for name in costs)
        print(f"{size} recipes, {what}: {told}", file=sys.stderr, flush=True)
    return found


def _subjects(tools: list[Tool], size: int) -> list[Subject]:
    """A project for each tool. Ours is the first: the others take its graph and its input files."""
    shutil.rmtree(BENCH / "projects", ignore_errors=True)
    ours = BENCH / "projects" / "thunder"
    write_ours(ours, size)
    nodes, subjects = read_graph(ours), []
    for tool in tools:
        folder = BENCH / "projects" / tool.name.lower().replace(" ", "-")
        if tool.name == tables.OURS:
            folder = ours
        else:
            write_inputs(folder, ours, nodes)
        tool.write(folder, nodes)
        subjects.append(Subject(tool, folder, nodes, size))
    return subjects


if __name__ == "__main__":
    main()
