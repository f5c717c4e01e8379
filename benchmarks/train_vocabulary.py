"""Measures memory and time of a step on a model with Gemma's vocabulary: this code against that of a commit before.

.venv/bin/python benchmarks/train_vocabulary.py [--before COMMIT] [--tokens 1024,2048,8192] [--before-tokens 1024,2048]
    [--steps 4] [--write] [--tiny]

The model has the shape of gemma3_text, 262,144 words, random weights and LoRA on all of its few blocks. One rank. To
tell what the output layer adds to the peak, the same is measured with a small vocabulary. --before-tokens: sizes for
the older code; logits of 1,024 tokens are 1.1 GB, and it holds several such arrays. --write: write the table to
benchmarks/TRAIN.md. --tiny: a few steps of a tiny model in a temporary folder, to check that this program works.
Other files are below .thunder/bench/train-vocabulary. Run it on an idle machine.
"""

import argparse
import io
import itertools
import json
import os
import re
import statistics
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

import train_page
import train_run
from train_material import PROJECT, Material, write
from train_sides import Side
from train_tables import QUIET_LOAD

BENCH = PROJECT / ".thunder" / "bench" / "train-vocabulary"
WORDS = 262_144
SHAPE = {"layers": 4, "width": 640, "heads": 4, "kv_heads": 1, "hidden": 2048}
ROW_TOKENS = 204
"""Tokens of a row, at most: `uniform` rows have 180 letters, the rest are turns."""
THIS, BEFORE = "this code", "before"
STEP = re.compile(r"^step (\d+)/\d+  train loss")


@dataclass(frozen=True)
class Cost:
    """Medians of the steps after the first. words: of the vocabulary. tokens: of a pass, at most. weights: bytes."""

    code: str
    words: int
    tokens: int
    peak_bytes: int
    weights: int
    wall_s: float
    cpu_s: float


def write_model(folder: Path, shape: dict[str, int], words: int) -> Path:
    """A gemma3_text folder with random weights and this many words; words: 0 for those of the tokenizer alone."""
    from thunder_train.worker.bootstrap import preload

    preload()
    import numpy as np
    from safetensors.numpy import load_file, save_file

    from thunder_train.worker import nano

    if (folder / "config.json").exists():
        return folder
    nano.write(folder, nano.Shape(**shape), seed=0)
    if words:
        name, weights = "model.embed_tokens.weight", load_file(folder / "model.safetensors")
        drawn = np.random.default_rng(0).standard_normal((words, shape["width"]), np.float32)
        weights[name] = drawn / np.float32(shape["width"] ** 0.5)
        save_file(weights, folder / "model.safetensors", {"format": "mlx"})
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {"vocab_size": words}))
    return folder


def measure(code: str, tree: Path, model: Path, material: Material, tokens: int, steps: int) -> Cost:
    """Train for a few steps with the code below tree. tokens: most of a pass; a step is one pass."""
    run = material.folder / f"run-{code.replace(' ', '-')}-{model.name}"
    run.mkdir(parents=True, exist_ok=True)
    layers = json.loads((model / "config.json").read_text())["num_hidden_layers"]
    flags = {
        "--model": model, "--train-data": material.folder / "train.jsonl",
        "--valid-data": material.folder / "test.jsonl", "--adapter-path": run / "adapter", "--num-iters": steps,
        "--eval-every": steps, "--save-every": steps, "--log-every": 1, "--global-batch-size": material.batch,
        "--num-layers": layers, "--micro-tokens": tokens, "--choose": "last",
    }  # fmt: skip
    argv = [sys.executable, "-m", "thunder_train.worker", *(str(part) for flag in flags.items() for part in flag)]
    probe = {"PYTHONPATH": f"{PROJECT / 'benchmarks' / 'train_probe'}:{tree}", "BENCH_PROBE": str(run / "probe")}
    subject, stamps = Side(code, run, [(argv, probe)]), []
    for seconds, line, process in train_run.lines(subject):
        if STEP.match(line):
            stamps.append((seconds, train_run.cpu_s(process)))
    walls, cpus = ([later[i] - sooner[i] for sooner, later in itertools.pairwise(stamps)] for i in (0, 1))
    words = json.loads((model / "config.json").read_text())["vocab_size"]
    weights = (model / "model.safetensors").stat().st_size
    peak = train_run.peak_bytes(subject)
    return Cost(code, words, tokens, peak, weights, statistics.median(walls), statistics.median(cpus))


def older(commit: str, folder: Path) -> Path:
    """The package as a commit has it."""
    packed = subprocess.run(["git", "archive", commit, "thunder_train"], cwd=PROJECT, check=True, capture_output=True)
    with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as archive:
        archive.extractall(folder, filter="data")
    return folder


def measure_all(home: Path, shape: dict[str, int], words: int, flags: argparse.Namespace) -> list[Cost]:
    """This code and the older one in turns, with the large vocabulary and with a small one."""
    models = [write_model(home / "large", shape, words), write_model(home / "small", shape, 0)]
    trees = {THIS: (PROJECT, flags.tokens)}
    if flags.before:
        trees[BEFORE] = (older(flags.before, home / f"code-{flags.before}"), flags.before_tokens)
    costs = []
    for tokens in sorted({*flags.tokens, *(flags.before_tokens if flags.before else [])}):
        batch = tokens // ROW_TOKENS
        material = write(home / f"rows-{tokens}", "uniform", batch * flags.steps, batch)
        for code, (tree, sizes) in trees.items():
            for model in models if tokens in sizes else []:
                costs.append(measure(code, tree, model, material, tokens, flags.steps))
                print(
                    f"{code}, {costs[-1].words} words, {tokens} tokens: {costs[-1].peak_bytes / 1e9:.2f} GB", flush=True
                )
    return costs


def page(costs: list[Cost], shape: dict[str, int], before: str, load: float) -> str:
    """The part of benchmarks/TRAIN.md. before: the older commit; load: load average before the first run."""
    small = {(cost.code, cost.tokens): cost for cost in costs if cost.words != max(each.words for each in costs)}
    lines = []
    for cost in costs:
        other = small[cost.code, cost.tokens]
        if cost is not other:
            head = (cost.peak_bytes - cost.weights) - (other.peak_bytes - other.weights)
            lines.append(
                f"| {cost.tokens:,} | {cost.code} | {cost.peak_bytes / 1e9:.2f} GB | {cost.weights / 1e9:.2f} GB "
                f"| {head / 1e6:.0f} MB | {cost.wall_s:.2f} s | {cost.cpu_s:.2f} s |"
            )
    busy = "" if load <= QUIET_LOAD else ": the machine was busy, so seconds of CPU say more than those of the clock"
    words, sizes = max(cost.words for cost in costs), ", ".join(f"{name} {value}" for name, value in shape.items())
    return "\n".join(
        [
            "# A vocabulary of Gemma's size",
            "",
            f"Model: gemma3_text ({sizes}), {words:,} words, float32, random; LoRA on all blocks; one rank, one "
            f"thread; load {load:.1f} before{busy}. A step is one pass of at most so many tokens, 45 % targets. "
            f"`{BEFORE}`: commit {before or '-'}. Share of the head: peak above the weights, less the same with few "
            "words; it is near 0 where the peak lies in the blocks.",
            "",
            "| tokens of a pass | code | peak | weights in it | share of the head | step | CPU of a step |",
            "|---|---|---|---|---|---|---|",
            *lines,
        ]
    )


def main() -> None:
    """Measure, print, and write if --write is given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sizes = {"type": lambda text: [int(part) for part in text.split(",")]}
    parser.add_argument("--before", default="")
    parser.add_argument("--tokens", default=[1024, 2048, 8192], **sizes)
    parser.add_argument("--before-tokens", default=[1024, 2048], **sizes)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--tiny", action="store_true")
    flags = parser.parse_args()
    load = os.getloadavg()[0]
    if flags.tiny:
        shape, flags.tokens, flags.before, flags.steps = {**SHAPE, "layers": 2, "width": 32, "hidden": 32}, [512], "", 3
        with tempfile.TemporaryDirectory() as folder:
            print(page(measure_all(Path(folder), shape, 2048, flags), shape, "", load))
        return
    text = page(measure_all(BENCH, SHAPE, WORDS, flags), SHAPE, flags.before, load)
    print(text)
    if flags.write:
        train_page.write("train_vocabulary.py", text)


if __name__ == "__main__":
    main()
