"""How long the build itself takes, against plain doit, make, ninja, Snakemake and DVC on the same graph.

.venv/bin/python benchmarks/build.py [--quick] [--dvc-500] [--write]

--quick: 1 and 50 recipes, ours and plain doit only. --dvc-500: DVC at 500 recipes too, which takes long. --write: put
the tables into benchmarks/README.md. Everything lies below .thunder/bench; the tools are installed there.
"""

import argparse
import shutil
import sys
from pathlib import Path

import hashing
import rivals
import tables
from graphs import CHAIN, PROJECT, Node, edit_rate, read_graph, recipe_name, write_inputs, write_ours
from measure import Cost, median, remade, stamps, timed
from rivals import Tool

BENCH = PROJECT / ".thunder" / "bench"
TURNS = {1: 9, 50: 7, 500: 5}
"""Recipes -> runs of which the median is taken."""
SLOW_TURNS = {"Snakemake": 3, "DVC": 3}
OURS = "thunder"


def main() -> None:
    """Measure, print, and write what was asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for flag in ("--quick", "--dvc-500", "--write"):
        parser.add_argument(flag, action="store_true")
    asked = parser.parse_args()
    tools = [Tool(OURS, rivals.DOIT, lambda folder, nodes: None), rivals.plain()]
    if not asked.quick:
        tools += rivals.install(BENCH, largest_dvc=500 if asked.dvc_500 else 50)
    turns = {1: 3, 50: 3} if asked.quick else TURNS
    found: tables.Found = {}
    for size in turns:
        found |= of_size(size, [tool for tool in tools if size <= tool.largest], turns[size])
    big = None if asked.quick else hashing.measure(BENCH)
    text = tables.markdown(found, big, [tool.version() for tool in tools[1:]], sys.argv[1:])
    print(text)
    if asked.write:
        tables.write(PROJECT / "benchmarks" / "README.md", text)


def of_size(size: int, tools: list[Tool], turns: int) -> tables.Found:
    """Every tool at one size. The tools take turns, so that a busy moment of the machine hits them alike."""
    shutil.rmtree(BENCH / "projects", ignore_errors=True)
    folders = {tool.name: BENCH / "projects" / tool.name.replace(" ", "-") for tool in tools}
    write_ours(folders[OURS], size)
    nodes = read_graph(folders[OURS])
    found: tables.Found = {}
    for tool in tools:
        if tool.name != OURS:
            write_inputs(folders[tool.name], folders[OURS], nodes)
        tool.write(folders[tool.name], nodes)
        cost = run(tool, folders[tool.name])
        if tool.name != "DVC":  # its first build is not run but written
            found[tool.name, size, "first build"] = cost
    for what in ("no-op", "one changed"):
        costs: dict[str, list[Cost]] = {tool.name: [] for tool in tools}
        for turn in range(turns + 1):  # the first one warms up, and is thrown away
            for tool in tools:
                if turn <= SLOW_TURNS.get(tool.name, turns):
                    costs[tool.name].append(one(what, tool, folders[tool.name], nodes, size, turn))
        found |= {(name, size, what): median(each[1:]) for name, each in costs.items()}
        print(f"{size} recipes, {what}: done", file=sys.stderr)
    return found


def one(what: str, tool: Tool, folder: Path, nodes: list[Node], size: int, turn: int) -> Cost:
    """One run, and the proof that it remade what it had to and nothing else."""
    number = turn * 37 % size
    if what == "one changed":
        edit_rate(folder, number, turn)
    before = stamps(folder, nodes)
    cost = run(tool, folder)
    expected = sorted(f"{stage}:{recipe_name(number)}" for stage in CHAIN) if what == "one changed" else []
    made = remade(nodes, before, stamps(folder, nodes))
    if made != expected:
        raise SystemExit(f"{tool.name}, {size} recipes, {what}: remade {made}, expected {expected}")
    return cost


def run(tool: Tool, folder: Path) -> Cost:
    """One call of a tool."""
    return timed(tool.argv, folder, rivals.environment(BENCH))


if __name__ == "__main__":
    main()
