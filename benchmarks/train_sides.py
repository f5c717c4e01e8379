"""Commands of the training benchmark's sides: the same model, rows, rows per step, LoRA and AdamW."""

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from train_material import Material

PROJECT = Path(__file__).resolve().parent.parent
LAYERS, RANK, SCALE, RATE, DECAY, LONGEST = 4, 8, 20.0, 1e-3, 0.01, 1024
"""Of all sides; SCALE is the factor of the LoRA product, LONGEST the most tokens of a row."""
OURS, THEIRS, EAGER, QUIET, ALONE = "ours", "mlx-lm", "mlx-lm, not compiled", "mlx-lm, no mlx.launch", "ours, 1 rank"
"""ours: with our launcher. mlx-lm: mlx_lm.lora with mlx.launch; the same with MLX_DISABLE_COMPILE=1; the same without
mlx.launch, because mlx.launch itself keeps a core busy."""


@dataclass(frozen=True)
class Side:
    """Commands to start together, each with its environment. run: folder for all output."""

    name: str
    run: Path
    commands: list[tuple[list[str], dict[str, str]]]

    @property
    def adapter(self) -> Path:
        """The folder of the adapter, as mlx-lm loads it."""
        return self.run / "adapter"


@dataclass(frozen=True)
class Job:
    """What the arguments of `side` say."""

    model: Path
    material: Material
    epochs: int
    run: Path
    layers: int
    rate: float

    @property
    def steps(self) -> int:
        """Optimizer steps."""
        return self.material.steps * self.epochs


def side(
    name: str,
    model: Path,
    material: Material,
    epochs: int,
    run: Path,
    is_pinned: bool = False,
    layers: int = LAYERS,
    rate: float = RATE,
    ranks: int = 2,
) -> Side:
    """The commands of a side that trains for `epochs` epochs and prints a line after each.

    layers: last blocks that get LoRA. rate: learning rate. ranks: 1 starts `OURS` and `THEIRS` without a launcher.
    """
    job = Job(model, material, epochs, run, layers, rate)
    (run / "probe").mkdir(parents=True, exist_ok=True)
    probe = f"{PROJECT / 'benchmarks' / 'train_probe'}:{PROJECT}"
    common = {"PYTHONPATH": probe, "BENCH_PROBE": str(run / "probe"), "PYTHONUNBUFFERED": "1"}
    common |= {"OPENBLAS_CORETYPE": "Haswell", "OPENBLAS_NUM_THREADS": "1"} | ({"BENCH_PIN": "1"} if is_pinned else {})
    if name in (OURS, ALONE):
        return Side(name, run, [(_ours(ALONE if ranks == 1 else name, job), common)])
    lora = [sys.executable, "-m", "mlx_lm.lora", "--config", str(_config(job))]
    if ranks == 1:
        return Side(name, run, [(lora, common)])
    if name == QUIET:
        addresses = run / "ring.json"
        port = 20000 + os.getpid() % 20000
        addresses.write_text(json.dumps([[f"127.0.0.1:{port}"], [f"127.0.0.1:{port + 1}"]]))
        ring = {"MLX_HOSTFILE": str(addresses)}
        return Side(name, run, [(lora, common | ring | {"MLX_RANK": str(rank)}) for rank in range(2)])
    launcher = [str(Path(sys.executable).parent / "mlx.launch"), "-n", "2", "--backend", "ring", "--", *lora]
    return Side(name, run, [(launcher, common | ({"MLX_DISABLE_COMPILE": "1"} if name == EAGER else {}))])


def _ours(name: str, job: Job) -> list[str]:
    """Our training, without gradient clipping because mlx-lm has none."""
    material, run, every = job.material, job.run, str(job.steps)
    flags = {
        "--model": job.model, "--train-data": material.folder / "train.jsonl",
        "--valid-data": material.folder / "valid.jsonl", "--adapter-path": run / "adapter",
        "--num-iters": every, "--eval-every": every, "--save-every": every, "--log-every": material.steps,
        "--global-batch-size": material.batch, "--max-seq-len": LONGEST, "--num-layers": job.layers,
        "--lora-rank": RANK, "--lora-scale": SCALE, "--learning-rate": job.rate, "--weight-decay": DECAY,
        "--max-grad-norm": 0, "--choose": "last",
    }  # fmt: skip
    arguments = [str(part) for flag in flags.items() for part in flag]
    if name == ALONE:
        return [sys.executable, "-m", "thunder_train.worker", *arguments]
    host = {"ssh": "127.0.0.1", "ips": ["127.0.0.1"], "rdma": []}
    (run / "hosts.json").write_text(json.dumps({"backend": "ring", "envs": [], "hosts": [host, host]}))
    launcher = [sys.executable, "-m", "thunder_train.launch", "--hostfile", str(run / "hosts.json")]
    return [*launcher, "--log-dir", str(run / "logs"), *arguments]


def _config(job: Job) -> Path:
    """Write mlx-lm's configuration; its batch_size is that of all ranks together. JSON is valid YAML."""
    material, run, every = job.material, job.run, job.steps
    config = {
        "model": str(job.model), "train": True, "data": str(material.folder), "adapter_path": str(run / "adapter"),
        "mask_prompt": True, "num_layers": job.layers, "batch_size": material.batch, "iters": every,
        "val_batches": -1, "steps_per_report": material.steps, "steps_per_eval": every, "save_every": every,
        "max_seq_length": LONGEST, "learning_rate": job.rate, "optimizer": "adamw",
        "optimizer_config": {"adamw": {"weight_decay": DECAY, "bias_correction": True}},
        "lora_parameters": {"rank": RANK, "scale": SCALE, "dropout": 0.0},
    }  # fmt: skip
    path = run / "lora.yaml"
    path.write_text(json.dumps(config))
    return path
