"""The pages that the benchmarks write, from invented results, and the build files for other tools."""

import json
from pathlib import Path

import cluster
import dvc_files
import pytest
import rivals
import tables
import train_sides
import train_tables
from graphs import Node
from hashing import Big
from measure import Cost
from train_material import Material

import data

NODES = [
    Node("data:rows", ["raw.txt"], ["data/rows.txt"], []),
    Node("check:one", [], ["runs/one/preflight.json"], []),
    Node("train:one", ["data/rows.txt"], ["runs/one/adapter.txt"], ["check:one"]),
    Node("manifest:one", ["runs/one/adapter.txt"], ["runs/one/manifest.json"], []),
]


def test_build_page() -> None:
    """
    Costs beside those of plain doit, and a verdict for each target.
    """
    scenarios = (tables.NO_OP, tables.CHANGED, tables.FIRST)
    seconds = {tables.OURS: 1.2, tables.PLAIN: 1.0, "DVC": 12.0}
    costs = {(name, 1, scenario): Cost(wall, wall / 2) for name, wall in seconds.items() for scenario in scenarios}
    big = Big(2 * 10**9, 1.0, 1.25, {"first build": 1, "no-op": 0}, (Cost(0.2, 0.1), Cost(0.2, 0.1)))
    page = tables.markdown(costs, big, ["doit 1"], ["--write"], with_targets=True)

    assert "| Thunder Train | 1.200 s (0.600) | 1.20, 1.20 |" in page
    assert "| no-op of 1 within 1.5 times plain doit | 1.20 (wall), 1.20 (CPU) | met |" in page
    assert "| at 1 at least 3 times as fast as DVC | 10.0 (no-op), 10.0 (one changed) | met |" in page
    assert "## A 2 GB input, read by 8 tasks" in page
    assert "| first hash at 90 % of hashlib.sha256 | 80 % | **not met** |" in page


def test_data_page() -> None:
    """
    Seconds and memory of the largest number of rows beside the targets.
    """
    ours = {1000: data.Cost(0.5, 2**20, 1000, {}), 10_000: data.Cost(4.0, 2**30, 10_000, {})}
    others = {"ours on two cores": data.Cost(31.0, 2**20, 10_000, {})}
    page = data.page(ours, True, 1000, others | {"Hugging Face datasets": data.Cost(8.0, 2**30, 10_000, {})})

    assert "| 10,000 rows | under 45 s | 4.0 s | met |" in page
    assert "| 10,000 rows, two cores | under 30 s | 31.0 s | **not met** |" in page
    assert "| peak memory | under 1024 MiB | 1024 MiB | **not met** |" in page
    assert "| datasets / ours, seconds | 3.0 or more | 2.0 | **not met** |" in page
    assert "| 1,000 | 0.5 | 500 | 1 |" in page
    assert "| 10,000, Hugging Face datasets | 8.0 | 800 | 1024 |" in page
    assert "datasets / ours" not in data.page(ours, True, 1000, others)


def test_train_page(tmp_path: Path) -> None:
    """
    Ratios of the sides beside the targets.
    """
    names = (train_sides.OURS, train_sides.THEIRS, train_sides.EAGER, train_sides.QUIET)
    against = {name: train_tables.Cost(100.0 / number, 10**6, 0.01, 4.0) for number, name in enumerate(names, start=1)}
    scaling = {train_sides.OURS: against[train_sides.OURS], train_sides.ALONE: train_tables.Cost(80.0, 1, 0.0, 0.0)}
    kinds = {kind: Material(tmp_path, kind, 64, 16) for kind in ("ragged", "uniform")}
    results = train_tables.Results(dict.fromkeys(kinds, against), dict.fromkeys(kinds, scaling), 2.0, 0.1, 0.2)
    page = train_tables.page(results, kinds, turns=2, epochs=4)

    assert "| supervised tokens/s on ragged rows, ours / mlx-lm | 2.0 or more | 2.00 | met |" in page
    assert "| efficiency of 2 ranks, uniform | 0.90 or more | 0.62 | **not met** |" in page
    assert "| start to first step, nano model, 2 ranks | under 4 s | 2.0 s | met |" in page


@pytest.mark.mlx
def test_cluster_page() -> None:
    """
    Files that differ are named, and the efficiency is that of two hosts.
    """
    run = cluster.Whole(2, 100.0, 90.0, ["eval.json"], 0.07, 0.033, "")
    page = cluster.page([run], {"1 Gbit/s": (100.0, 150.0)}, steps=160, turns=1, load=0.0)

    assert "| 2 | 100 s | 90 s | eval.json | 0.07 ms | 0.0330 |" in page
    assert "| 1 Gbit/s | 100 | 150 | 0.75 |" in page


def test_build_files_for_other_tools(tmp_path: Path) -> None:
    """
    Each tool gets all tasks, and check only orders a training.
    """
    for path in (path for node in NODES for path in node.targets):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "raw.txt").write_text("raw\n")
    rivals.write_make(tmp_path, NODES)
    rivals.write_ninja(tmp_path, NODES)
    rivals.write_snakemake(tmp_path, NODES)
    dvc_files.write(tmp_path, NODES, {node.name: "true" for node in NODES})

    assert "runs/one/adapter.txt &: data/rows.txt | runs/one/preflight.json" in (tmp_path / "Makefile").read_text()
    assert (
        "build runs/one/adapter.txt: run data/rows.txt || runs/one/preflight.json"
        in (tmp_path / "build.ninja").read_text()
    )
    assert "output: 'runs/{recipe}/adapter.txt'" in (tmp_path / "Snakefile").read_text()
    stages = (tmp_path / "dvc.yaml").read_text()
    assert all(f"  {name}:" in stages for name in ("data-rows", "train-one", "manifest-one"))
    assert json.dumps("true") in (tmp_path / "dvc.lock").read_text()
