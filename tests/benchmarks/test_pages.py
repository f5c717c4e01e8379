"""The pages that the benchmarks write, from invented results, and the build files for other tools."""

import json
from dataclasses import replace
from pathlib import Path

import cluster
import dvc_files
import pytest
import rivals
import tables
import train_english
import train_page
import train_real_page
import train_sides
import train_tables
import train_vocabulary
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


def test_real_model_page() -> None:
    """
    Medians of the turns beside the targets; PEFT has no part in some cases.
    """
    made = {
        "ours": train_real_page.Result("float32-4", "ours", 3, 3000, 10.0, 20.0, 8 * 10**8, 10**9, 2.5),
        "mlx-lm": train_real_page.Result("float32-4", "mlx-lm", 3, 3000, 30.0, 50.0, 2 * 10**9, 2 * 10**9, 2.6),
        train_real_page.PEFT: train_real_page.Result(
            "float32-4", train_real_page.PEFT, 3, 3000, 20.0, 40.0, 0, 4 * 10**9, 2.4
        ),
    }
    slower = replace(made["ours"], seconds=12.0)
    page = train_real_page.page([*made.values(), slower, slower], "smol", 96, 8, 0.1)

    assert "| ours | 250 | 1.00 | 0.80 GB | 1.00 GB | 20 s | 2.5000 | 3 |" in page
    assert "| PEFT on torch | 150 | 1.67 | - | 4.00 GB | 40 s | 2.4000 | 1 |" in page
    assert "last 4 blocks, 3 epochs: ours / mlx-lm | 4 or more | 2.50 | **not met** |" in page
    assert "last 4 blocks, 3 epochs: peak memory of a rank | 0.50 or less | 0.40 | met |" in page
    assert "last 4 blocks, 3 epochs: ours / PEFT | 2 or more | 1.67 | **not met** |" in page
    all_blocks = replace(made["ours"], case="float32-all")
    assert "on all blocks, 3 epochs: " not in train_real_page.page([all_blocks], "smol", 96, 8, 0.1)


def test_vocabulary_page() -> None:
    """
    What the small vocabulary needs, too, is no part of the head's share.
    """
    sizes = ((1000, 9 * 10**8, 5 * 10**8), (10, 3 * 10**8, 10**8))
    costs = [train_vocabulary.Cost("this code", words, 512, peak, weights, 2.0, 1.5) for words, peak, weights in sizes]
    page = train_vocabulary.page(costs, {"layers": 2}, "", 0.0)

    assert "| 512 | this code | 0.90 GB | 0.50 GB | 200 MB | 2.00 s | 1.50 s |" in page


def test_a_program_replaces_its_part_of_the_page_alone() -> None:
    """
    The parts of other programs, and what people wrote into them, stay.
    """
    page = train_page.replaced(train_page.replaced("# Title\n", "one.py", "1\n"), "two.py", "2\n")
    changed = train_page.replaced(page, "one.py", "3")

    assert [page.replace("\n1\n", "\n3\n"), page] == [changed, train_page.replaced(changed, "one.py", "1")]
    assert changed.index("one.py") < changed.index("3") < changed.index("two.py") < changed.index("2")


def test_english_rows(tmp_path: Path) -> None:
    """
    The same rows each time; their lengths are ragged, and validation continues no text of training.
    """
    first = train_english.write(tmp_path / "one", 40, 8)
    train_english.write(tmp_path / "two", 40, 8)
    rows = {name: (first.folder / f"{name}.jsonl").read_text() for name in ("train", "valid", "test")}
    answers = [json.loads(line)["messages"][1]["content"] for line in rows["train"].splitlines()]

    assert rows == {name: (tmp_path / "two" / f"{name}.jsonl").read_text() for name in rows}
    assert (40, 16, 5) == (len(answers), len(rows["valid"].splitlines()), first.steps)
    assert 3 * min(map(len, answers)) < max(map(len, answers))


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
