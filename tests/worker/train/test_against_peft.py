"""Numerics against torch + PEFT: short trainings by our worker and by peft_reference.py, compared step by step.

THUNDER_TORCH_PYTHON names a Python with torch, transformers and peft; without it these tests are skipped.
"""

import json
import os
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.helpers import model_folders
from tests.worker.conftest import flags, python, row, write_rows

VARIABLE = "THUNDER_TORCH_PYTHON"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.ranks,
    pytest.mark.skipif(VARIABLE not in os.environ, reason=f"{VARIABLE} names no Python with torch and peft"),
]
STEPS, ROWS = 12, 6
CLIPPED = {"llama": 2.0, "qwen3": 1.8, "gemma3_text": 3.0}
"""Largest norm of a gradient, so that some steps are clipped and some are not."""
TEXTS = [
    "A ring has no end.", "It rains.", "The train left before the storm reached the valley.", "Two and two are four.",
    "Thunder follows lightning, and the distance follows from the seconds between them.", "No.", "Read the label.",
    "Snow lay on the tracks.", "Every signal has two colours.", "The bridge hums when a long train crosses it.",
    "Count the cars.", "Wind.", "A whistle is heard far away on cold mornings.", "The last car is red.", "Stop here.",
    "Rails expand in the heat of the afternoon, so a gap is left between them.", "Yes.", "Switches are set by hand.",
]  # fmt: skip
LOSS, NORM, ADAPTER = 3e-5, 5e-5, 1e-4
"""Tolerances: nats per target of a step; share of a step's gradient norm; the norm of the adapters' difference as a
share of the norm of their change. Measured: 1.2e-5, 1.1e-5 and 2.0e-5, most of it because MLX's AdamW computes the bias
correction 1 - 0.999^t in float32: a reference in float64 is as far away. A schedule that is one step shorter, no
clipping and no weight decay are 1e-1, 2e-2 and 3e-3 off in the loss.
"""


class Case(NamedTuple):
    """A base model and flags of the worker. bits: 4 for a quantised base."""

    family: str
    bits: int = 0
    ranks: int = 1
    kind: str = "lora"
    schedule: str = "constant"
    warmup_steps: int = 0


CASES = {
    "LoRA": Case("llama"),
    "DoRA": Case("qwen3", kind="dora"),
    "4 bits": Case("llama", bits=4),
    "2 ranks": Case("qwen3", ranks=2),
    "gemma3, 4 bits, 2 ranks, cosine with warm-up": Case("gemma3_text", 4, 2, "lora", "cosine", 3),
    "gemma3, DoRA, cosine with warm-up": Case("gemma3_text", 0, 1, "dora", "cosine", 3),
}


@pytest.mark.parametrize("name", CASES)
def test_losses_and_adapter_are_those_of_torch_and_peft(name: str, tmp_path: Path) -> None:
    """
    Another library's model, LoRA, AdamW, schedule and clipping: no mistake of ours can be in both.
    """
    case = CASES[name]
    base = write_base(tmp_path / "base", case)
    write_rows(tmp_path / "rows.jsonl", [row(number, text) for number, text in enumerate(TEXTS)])
    chosen = settings(tmp_path, base, case)
    events, end = trained(tmp_path, chosen, case.ranks)
    reference = tmp_path / "reference"
    start = write_job(reference, chosen, case)
    script = Path(__file__).with_name("peft_reference.py")
    subprocess.run([os.environ[VARIABLE], script, reference], check=True, timeout=300, stdin=subprocess.DEVNULL)
    expected, theirs = json.loads((reference / "steps.json").read_text()), load(reference / "end.safetensors")

    assert expected["losses"][0] - expected["losses"][-1] > 1  # the training teaches something
    assert pytest.approx(expected["losses"], rel=0, abs=LOSS) == [event["loss"] for event in events]
    assert pytest.approx(expected["norms"], rel=NORM) == [event["grad_norm"] for event in events]
    assert max(expected["norms"]) > CLIPPED[case.family] > min(expected["norms"])
    assert distance(theirs, end) < ADAPTER * distance(theirs, start)


def write_base(folder: Path, case: Case) -> Path:
    """The base model, 3 layers, as the worker reads it."""
    packed = {"bits": case.bits, "group_size": 32} if case.bits else None
    return model_folders.make(folder, case.family, quantized=packed, num_hidden_layers=3)


def settings(folder: Path, base: Path, case: Case) -> dict[str, Any]:
    """The worker's flags, by name."""
    return {
        "model": base, "train_data": folder / "rows.jsonl", "valid_data": folder / "rows.jsonl", "num_iters": STEPS,
        "adapter_path": folder / "run" / "adapter", "global_batch_size": ROWS, "num_layers": 2, "lora_rank": 4,
        "lora_scale": 4.0, "learning_rate": 3e-3, "weight_decay": 0.1, "max_grad_norm": CLIPPED[case.family],
        "log_every": 1, "eval_every": STEPS, "save_every": STEPS, "choose": "last", "fine_tune_type": case.kind,
        "schedule": case.schedule, "warmup_steps": case.warmup_steps, "micro_tokens": 200,
    }  # fmt: skip


def trained(folder: Path, chosen: dict[str, Any], ranks: int) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Train with the worker: what it logs of each step, and the adapter."""
    program, arguments = "thunder_train.worker", flags(chosen["adapter_path"], **chosen)
    if ranks > 1:
        host = {"ssh": "127.0.0.1", "ips": ["127.0.0.1"], "rdma": []}
        (folder / "hosts.json").write_text(json.dumps({"backend": "ring", "envs": [], "hosts": [host] * ranks}))
        launcher = ["--hostfile", str(folder / "hosts.json"), "--log-dir", str(folder / "logs")]
        program, arguments = "thunder_train.launch", launcher + arguments
    done = python(program, arguments, folder)
    assert 0 == done.returncode, done.stdout + done.stderr
    events = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    assert "rows are packed" in done.stdout
    assert "which are frozen, is kept" in done.stdout
    return [event for event in events if event["event"] == "train"], load(
        chosen["adapter_path"] / "adapters.safetensors"
    )


def write_job(folder: Path, chosen: dict[str, Any], case: Case) -> dict[str, Any]:
    """Write what peft_reference.py reads: base, rows of each step, first adapter, settings. Returns that adapter."""
    import mlx.core as mx
    from mlx.utils import tree_flatten
    from mlx_lm.utils import dequantize_model

    from thunder_train.worker import chat, model
    from thunder_train.worker.args import parse
    from thunder_train.worker.batching import tokens
    from thunder_train.worker.batching.loader import DataLoader, costs_of

    given = parse(flags(chosen["adapter_path"], **chosen))
    network, tokenizer = model.load(str(chosen["model"]), "")
    policy = tokens.Policy(given.max_seq_len, given.too_long, given.train_on)
    rows = tokens.read(given.train_data, chat.of(tokenizer, given), policy, None).examples
    loader = DataLoader(rows, ROWS, given.seed, 0, 1, costs_of(network, rows.lengths, given.micro_tokens))
    lora = model.Lora(given.num_layers, given.lora_rank, given.lora_scale, kind=given.fine_tune_type)
    model.add_lora(network, lora, given.seed)
    start = dict(model.adapter_tensors(network))

    config = json.loads((chosen["model"] / "config.json").read_text())
    plain = model.load(str(chosen["model"]), "")[0]
    plain = dequantize_model(plain) if case.bits else plain
    (folder / "base").mkdir(parents=True)
    weights = dict(tree_flatten(plain.parameters()))
    mx.save_safetensors(str(folder / "base" / "model.safetensors"), weights, {"format": "mlx"})
    kept = {name: value for name, value in config.items() if not name.startswith("quantization")}
    (folder / "base" / "config.json").write_text(json.dumps(kept))
    mx.save_safetensors(str(folder / "start.safetensors"), {name: mx.array(leaf) for name, leaf in start.items()})
    names = ("learning_rate", "weight_decay", "max_grad_norm", "schedule", "warmup_steps")
    steps = [[{"tokens": rows[i].tokens, "spans": rows[i].spans} for i in loader.rows(step)] for step in range(STEPS)]
    job = {name: chosen[name] for name in names} | {"rank": lora.rank, "scale": lora.scale, "kind": lora.kind}
    job |= {"modules": sorted({name.rpartition(".")[0] for name in start}), "steps": steps}
    (folder / "job.json").write_text(json.dumps(job, default=list))
    return start


def load(path: Path) -> dict[str, Any]:
    """Tensors as numpy arrays."""
    from safetensors.numpy import load_file

    return dict(load_file(path))


def distance(one: dict[str, Any], other: dict[str, Any]) -> float:
    """The norm of the difference of two adapters, all tensors together."""
    import numpy as np

    assert one.keys() == other.keys()
    return float(np.sqrt(sum(((np.array(one[name]) - np.array(other[name])) ** 2).sum() for name in one)))
