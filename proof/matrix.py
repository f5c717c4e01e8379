"""The fixed matrix of small runs, and the comparison of what two versions of the code make of it.

Both versions run here, one after the other, on the same rows and base models, so the machine's own libraries cancel
out. A stage that need not be proven takes its outputs from the earlier version, so that its changes stay out of the
stages after it.
"""

import glob
import json
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thunder_train import ThunderError
from thunder_train.config.toml_io import as_toml

STAGES = ("data", "model", "train", "evaluate")
"""Stages that have a revision, in the order in which they run."""
OUTPUTS = {
    "data": ("data/*/*.jsonl", "data/*/manifest.json"),
    "model": ("runs/models/*/model.lock.json", "runs/models/*/files/*"),
    "train": ("runs/*/adapter/*", "runs/*/last/*", ".thunder/proof/*/*/adapter/*"),
    "evaluate": ("runs/*/predictions.jsonl", "runs/*/decisions.jsonl", "runs/*/eval.json"),
}
"""{stage: patterns of the files that must not change}. Times are in none of them."""
INPUTS = ("data/sources", "models", "templates/prompts")
"""Rows, base models and prompts of the project: both versions read these."""
STEPS = {"num_iters": 4, "eval_every": 2, "save_every": 2, "log_every": 1, "learning_rate": 1e-3, "max_seq_len": 512}
RUNS: dict[str, dict[str, Any]] = {
    "lora": {"schedule": "cosine", "warmup_steps": 1, "lora_dropout": 0.1, "batch_size": 3},
    "lora-4bit-padded": {"packing": "never", "grad_checkpoint": True, "global_batch_size": 5, "choose": "last"},
    "dora-padded": {"fine_tune_type": "dora", "packing": "never", "schedule": "linear", "batch_size": 2},
    "dora-4bit": {"fine_tune_type": "dora", "grad_accumulation": 2, "train_on": "all"},
    "tensor": {"strategy": "tensor", "batch_size": 3, "lora_dropout": 0.1, "grad_accumulation": 2},
    "tensor-4bit-padded": {"strategy": "tensor", "packing": "never", "batch_size": 2, "micro_tokens": 256},
}
"""{recipe: its [train] beside STEPS}: every two of strategy with method, base and packing meet."""
RESUMED = ("lora", "tensor")
"""Recipes whose training is also resumed from its checkpoint in the middle."""
EXPECTED = {
    "data": ("data/agp-nko-corrections/train.jsonl", "data/agp-nko-corrections/manifest.json"),
    "model": ("runs/models/nano/files/model.safetensors", "runs/models/nano/model.lock.json"),
    "train": (
        *(f"runs/{name}/adapter/{file}" for name in RUNS for file in ("adapters.safetensors", "done.json")),
        *(f".thunder/proof/{name}/own/adapter/adapters.safetensors" for name in RESUMED),
    ),
    "evaluate": tuple(f"runs/{name}/{file}" for name in RUNS for file in ("predictions.jsonl", "eval.json")),
}
"""{stage: files that the matrix must have made}."""
QUANTIZED = "nano-4bit"
UNRECORDED = """
import json
from pathlib import Path
from thunder_train.core import revisions
from thunder_train.core.stat_cache import StatCache
print(json.dumps(revisions.unrecorded(StatCache(Path(".thunder/stats.sqlite")))))
"""


@dataclass(frozen=True)
class Tree:
    """A project folder with one version of the code, and the matrix in place of its own recipes."""

    path: Path

    def doit(self, *words: str) -> None:
        """Run doit in the folder. Raises ThunderError with its output if it fails."""
        self.run(sys.executable, "-m", "thunder_train.cli", "run", *words)

    def run(self, *argv: str) -> str:
        """Run a program in the folder, with the folder's code, and return its output."""
        unset = ("DOIT_FILE", "DOIT_SEEK_FILE", "PYTHONSAFEPATH")
        env = {name: text for name, text in os.environ.items() if name not in unset}
        env |= {"PYTHONPATH": str(self.path), "THUNDER_PYTHON": sys.executable, "HF_HUB_OFFLINE": "1"}
        done = subprocess.run(
            argv, cwd=self.path, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
        if done.returncode:
            raise ThunderError(f"{' '.join(argv)} failed:\n{done.stdout[-4000:]}", self.path.name)
        return done.stdout

    def outputs(self, stage: str) -> set[str]:
        """Paths of a stage's outputs, from the folder."""
        found = {path for pattern in OUTPUTS[stage] for path in glob.glob(pattern, root_dir=self.path)}
        return {path for path in found if not path.startswith("data/sources/")}


def differences(project: Path, commit: str, stages: Sequence[str]) -> list[str]:
    """Outputs of these stages that are not the same with the commit's code and with the project's."""
    with tempfile.TemporaryDirectory(prefix="thunder-proof-") as folder, worktree(project, commit, folder) as before:
        _require_recorded(before, commit, stages)
        now = Tree(Path(folder) / "now")
        _copy_project(project, now.path)
        base = Path(folder) / QUANTIZED
        make_quantized(now, base)
        for tree in (before, now):
            place(tree, project, base)
        return compared(before, now, stages)


def compared(before: Tree, now: Tree, stages: Sequence[str]) -> list[str]:
    """Run the matrix in both trees, stage by stage, up to the last of `stages`; the outputs of these that differ."""
    differing = []
    for stage in STAGES[: max(map(STAGES.index, stages)) + 1]:
        print(f"{stage}: with the earlier code", flush=True)
        make(before, stage)
        _require_outputs(before, stage)
        if stage in stages:
            print(f"{stage}: with the present code", flush=True)
            make(now, stage)
            if stage == "train":
                _resume_from_the_earlier_code(before, now)
            differing += [f"{stage}: {path}" for path in unequal(before, now, stage)]
        _copy(before, now, before.outputs(stage))
    return differing


def make(tree: Tree, stage: str) -> None:
    """A stage of the matrix in a tree, of whatever stands there of the stages before it."""
    if stage in ("data", "model"):
        tree.doit(stage)
        return
    tree.doit(*(f"{each}:{name}" for name in RUNS for each in ("hostfile", "scripts")))
    for name in RUNS:
        tree.doit("-s", f"{stage}:{name}")  # of several tasks after -s doit runs the first alone
    if stage == "train":
        for name in RESUMED:
            _resume(tree, name)


def _require_outputs(tree: Tree, stage: str) -> None:
    """Raise ThunderError if a file lacks that a stage must have made: two missing files would count as equal."""
    if lacking := sorted({*EXPECTED[stage]} - tree.outputs(stage)):
        raise ThunderError(f"the matrix made no {', '.join(lacking)}", stage, "this is an error in proof/matrix.py")


def unequal(before: Tree, now: Tree, stage: str) -> list[str]:
    """Paths of outputs that are not the same in both trees, or that one of them lacks."""
    paths = before.outputs(stage) | now.outputs(stage)
    return sorted(path for path in paths if _content(before.path / path) != _content(now.path / path))


def place(tree: Tree, project: Path, base: Path) -> None:
    """Replace a tree's recipes by the matrix, and rows, models and prompts by the project's. base: the 4-bit model."""
    for name in INPUTS:
        shutil.rmtree(tree.path / name, ignore_errors=True)
        shutil.copytree(project / name, tree.path / name)
    shutil.copytree(base, tree.path / "models" / QUANTIZED)
    shutil.rmtree(tree.path / "recipes")
    (tree.path / "recipes").mkdir()
    datasets = tomllib.loads((project / "thunder.toml").read_text(encoding="utf-8"))["datasets"]
    nano = {"kind": "nano", "layers": 6, "width": 64, "heads": 4, "kv_heads": 2, "hidden": 128, "seed": 0}
    tables = {
        "project": {"recipes": [*RUNS], "cache_limit_gb": 0.0},
        "clusters": {"local": {"backend": "ring", "ranks": 2}},
        "models": {"nano": nano, QUANTIZED: {"kind": "path", "path": f"models/{QUANTIZED}"}},
        "datasets": datasets,
    }
    (tree.path / "thunder.toml").write_text(as_toml(tables, "the matrix"), encoding="utf-8")
    for name, train in RUNS.items():
        (tree.path / "recipes" / f"{name}.toml").write_text(as_toml(_recipe(name, train), name), encoding="utf-8")


def _recipe(name: str, train: dict[str, Any]) -> dict[str, Any]:
    limits = ("max_empty", "max_pad", "max_loop", "max_wrong_script", "max_over_long")  # random models answer nonsense
    model = QUANTIZED if "4bit" in name else "nano"
    evaluate = {"max_tokens": 16, "probe": dict.fromkeys(limits, 1.0)}
    named = {"name": name, "cluster": "local", "dataset": "agp-nko-corrections", "model": model}
    return {**named, "train": STEPS | train, "evaluate": evaluate}


def make_quantized(tree: Tree, base: Path) -> None:
    """Write a 4-bit base model. It is an input of the matrix, the same for both versions."""
    sizes = ("--layers", "6", "--width", "64", "--heads", "4", "--kv-heads", "2", "--hidden", "128", "--seed", "1")
    whole = f"{base}-whole"
    tree.run(sys.executable, "-m", "thunder_train.worker.nano", "--output", whole, *sizes)
    bits = ("-q", "--q-bits", "4", "--q-group-size", "32")
    tree.run(sys.executable, "-m", "mlx_lm", "convert", "--hf-path", whole, "--mlx-path", str(base), *bits)


@contextmanager
def worktree(project: Path, commit: str, folder: str) -> Iterator[Tree]:
    """The project as it was at a commit, in a folder that is removed in the end."""
    tree = Tree(Path(folder) / "before")
    git = ["git", "-C", str(project), "worktree"]
    subprocess.run([*git, "add", "--quiet", "--detach", str(tree.path), commit], check=True)
    try:
        yield tree
    finally:
        subprocess.run([*git, "remove", "--force", str(tree.path)], check=True)


def _require_recorded(tree: Tree, commit: str, stages: Sequence[str]) -> None:
    """Raise ThunderError unless the commit's code is the one that its revisions.json records."""
    unrecorded = json.loads(tree.run(sys.executable, "-c", UNRECORDED))
    if wrong := [stage for stage in stages if stage in unrecorded]:
        what = f"its revisions.json does not record the code of {', '.join(wrong)} that it holds"
        raise ThunderError(what, f"commit {commit[:12]}", "raise these stages")


def _copy_project(project: Path, target: Path) -> None:
    """The working tree: what git tracks or does not ignore."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=project,
        capture_output=True,
        check=True,
    )
    for name in filter(None, os.fsdecode(listed.stdout).split("\0")):
        if (project / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(project / name, target / name)


def _resume(tree: Tree, name: str) -> None:
    """Train by launch.sh to the end, take back the last checkpoint, and train on from the one before it."""
    home = tree.path / ".thunder/proof" / name
    _launch(tree, name, "own")
    _newest(home / "own/checkpoints").unlink()
    shutil.copytree(home / "own/checkpoints", home / "half")
    shutil.rmtree(home / "own/adapter")
    _launch(tree, name, "own")


def _resume_from_the_earlier_code(before: Tree, now: Tree) -> None:
    """Checkpoints stay valid where the revision stays: the present code goes on from those of the earlier one."""
    for name in RESUMED:
        home = f".thunder/proof/{name}"
        shutil.copytree(before.path / home / "half", now.path / home / "earlier/checkpoints")
        _launch(now, name, "earlier")
        shutil.copytree(before.path / home / "own", before.path / home / "earlier")


def _launch(tree: Tree, name: str, folder: str) -> None:
    home = f".thunder/proof/{name}/{folder}"
    output = ("--adapter-path", f"{home}/adapter", "--checkpoint-path", f"{home}/checkpoints")
    tree.run("bash", f"runs/{name}/launch.sh", *output)


def _newest(checkpoints: Path) -> Path:
    return max(checkpoints.glob("*.safetensors"))


def _copy(before: Tree, now: Tree, paths: set[str]) -> None:
    for path in paths:
        (now.path / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(before.path / path, now.path / path)


def _content(path: Path) -> bytes | None:
    """A file's bytes; of a dataset's manifest without the version of the code, which is no output."""
    if not path.is_file():
        return None
    data = path.read_bytes()
    if path.name != "manifest.json":
        return data
    manifest = json.loads(data)
    manifest["builder"].pop("code", None)
    return json.dumps(manifest, sort_keys=True).encode()
