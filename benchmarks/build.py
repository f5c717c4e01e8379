"""Measures the build itself against plain doit, make, ninja, Snakemake and DVC on the same graph.

.venv/bin/python benchmarks/build.py [--quick] [--dvc-500] [--write] [--tiny]

--quick: 1 and 50 recipes, ours and plain doit only. --dvc-500: DVC at 500 recipes too, which takes long. --write: write
the tables to benchmarks/README.md. --tiny: one short run of ours, plain doit and make in a temporary folder, to check
that this program works. All files are below .thunder/bench, the tools included.
"""

import argparse
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import hashing
import rivals
import tables
from graphs import CHAIN, PROJECT, Node, edit_rate, read_graph, recipe_name, write_inputs, write_ours
from measure import Cost, median, rebuilt, stamps, timed
from rivals import Tool

BENCH = PROJECT / ".thunder" / "bench"
TURNS = {1: 31, 50: 21, 500: 7}
"""Number of recipes -> runs of which the median is taken."""
QUICK_TURNS = {1: 3, 50: 3}
SLOW_TURNS = {("Snakemake", 1): 5, ("Snakemake", 50): 3, ("Snakemake", 500): 3}
SLOW_TURNS |= {("DVC", 1): 5, ("DVC", 50): 3, ("DVC", 500): 0}
"""Fewer runs for slow tools; 0 is one run without a warm-up."""


@dataclass(frozen=True)
class Subject:
    """A tool in a project of `size` recipes. home: the benchmark's folder."""

    tool: Tool
    home: Path
    folder: Path
    nodes: list[Node]
    size: int

    def run(self) -> Cost:
        """One run of the tool."""
        return timed(self.tool.argv, self.folder, rivals.environment(self.home))

    def measure(self, scenario: str, turn: int) -> Cost:
        """One run. Stops the benchmark unless exactly the right tasks ran."""
        number, is_change = turn * 37 % self.size, scenario == tables.CHANGED
        if is_change:
            edit_rate(self.folder, number, turn)
        before = stamps(self.folder, self.nodes)
        cost = self.run()
        expected = sorted(f"{stage}:{recipe_name(number)}" for stage in CHAIN) if is_change else []
        actual = rebuilt(self.nodes, before, stamps(self.folder, self.nodes))
        if actual != expected:
            raise SystemExit(f"{self.tool.name}, {self.size} recipes, {scenario}: ran {actual}, expected {expected}")
        return cost


def main() -> None:
    """Measure, print, and write if --write is given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for flag in ("--quick", "--dvc-500", "--write", "--tiny"):
        parser.add_argument(flag, action="store_true")
    flags = parser.parse_args()
    tools = [Tool(tables.OURS, rivals.DOIT, lambda folder, nodes: None), rivals.plain()]
    if flags.tiny:
        with tempfile.TemporaryDirectory() as folder:
            print(tiny(Path(folder), [*tools, *rivals.make()]))
        return
    if not flags.quick:
        tools += rivals.install(BENCH, largest_dvc=500 if flags.dvc_500 else 50)
    costs: tables.Costs = {}
    for size, turns in (QUICK_TURNS if flags.quick else TURNS).items():
        costs |= measure([tool for tool in tools if size <= tool.largest], BENCH, size, turns)
    big = None if flags.quick else hashing.measure(BENCH)
    shutil.rmtree(BENCH / "projects")
    text = tables.markdown(costs, big, [tool.version() for tool in tools[1:]], sys.argv[1:], with_targets=True)
    print(text)
    if flags.write:
        tables.write(PROJECT / "benchmarks" / "README.md", text)


def tiny(home: Path, tools: list[Tool]) -> str:
    """The tables of one short run, without targets."""
    costs = measure(tools, home, size=1, turns=1)
    big = hashing.measure(home, size=10**6, turns=1, idle_turns=1)
    return tables.markdown(costs, big, [tool.version() for tool in tools[1:]], ["--tiny"], with_targets=False)


def measure(tools: list[Tool], home: Path, size: int, turns: int) -> tables.Costs:
    """All tools with `size` recipes. They take turns, so that other work on the machine affects them equally."""
    subjects, costs = [], {}
    for subject in _subjects(tools, home, size):
        cost = subject.run()
        if subject.tool.name != "DVC":  # its first build is not run but written
            costs[subject.tool.name, size, tables.FIRST] = cost
        subjects.append(subject)
    for scenario in (tables.NO_OP, tables.CHANGED):
        runs: dict[str, list[Cost]] = {tool.name: [] for tool in tools}
        for turn in range(turns + 1):  # the first one is a warm-up
            for subject in subjects:
                if turn <= SLOW_TURNS.get((subject.tool.name, size), turns):
                    runs[subject.tool.name].append(subject.measure(scenario, turn))
        costs |= {(name, size, scenario): median(each[1:] or each) for name, each in runs.items()}
        progress = ", ".join(f"{name} {costs[name, size, scenario].wall:.3f} s" for name in runs)
        print(f"{size} recipes, {scenario}: {progress}", file=sys.stderr, flush=True)
    return costs


def _subjects(tools: list[Tool], home: Path, size: int) -> list[Subject]:
    """A project for each tool. Ours is the first, because the others get its graph and its input files."""
    shutil.rmtree(home / "projects", ignore_errors=True)
    ours = home / "projects" / "thunder"
    write_ours(ours, size)
    nodes, subjects = read_graph(ours), []
    for tool in tools:
        folder = home / "projects" / tool.name.lower().replace(" ", "-")
        if tool.name == tables.OURS:
            folder = ours
        else:
            write_inputs(folder, ours, nodes)
        tool.write(folder, nodes)
        subjects.append(Subject(tool, home, folder, nodes, size))
    return subjects


if __name__ == "__main__":
    main()
