"""One rank of the tensor-parallel tests: trains each case as a whole model and split, and writes their differences.

Writes OUT/rank-N.json and, on rank 0, for each case OUT/CASE/ with the adapter in mlx-lm's format and the logits of
the split model. Started by thunder_train.launch.
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.helpers import families
from thunder_train.worker.bootstrap import enter


@dataclass(frozen=True)
class Case:
    """A model of families.CONFIGS and the options of its training."""

    name: str
    bits: int = 0
    dropout: float = 0.0
    is_packed: bool = False
    is_checkpointed: bool = False


CASES = {f"{name}-{bits}": Case(name, bits) for name in families.CONFIGS for bits in (0, 4)} | {
    "dropout": Case("qwen2", dropout=0.3),
    "packed": Case("gemma4_e2b", is_packed=True),
    # The last case, because it patches the class of the blocks.
    "checkpointed": Case("gemma4_e2b", 4, is_checkpointed=True),
}
LORA: dict[str, Any] = {"rank": 4, "scale": 2.0}
STEPS = 3


def main(argv: list[str]) -> None:
    """Run the cases that the flags name."""
    from thunder_train.worker.ranks import join

    parser = argparse.ArgumentParser()
    parser.add_argument("--hostfile", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--cases", type=lambda text: text.split(","))
    flags = parser.parse_args(argv)
    ranks = join(flags.hostfile)
    results: dict[str, Any] = {case: run(case, ranks, flags.out) for case in flags.cases}
    results["memory"] = memory(ranks)
    (flags.out / f"rank-{ranks.rank}.json").write_text(json.dumps(results))


def adapted(case: Case) -> Any:
    """The case's model with an adapter whose two matrices are both random."""
    import mlx.core as mx
    from mlx.utils import tree_unflatten

    from thunder_train.worker import model

    network = families.build(case.name, case.bits)
    lora = model.Lora(len(network.layers), LORA["rank"], LORA["scale"], case.dropout)
    model.add_lora(network, lora, seed=0)
    trained = model.trainable(network)
    network.update(tree_unflatten([(path, 0.1 * mx.random.normal(leaf.shape)) for path, leaf in trained.items()]))
    if case.is_checkpointed:
        model.checkpoint_blocks(network)
    mx.eval(network.parameters())
    return network


def batch(is_packed: bool) -> Any:
    """Three sequences of unequal length; is_packed: each contains two rows, the last one row and padding."""
    import mlx.core as mx
    import numpy as np

    from thunder_train.worker.batching.batch import Batch

    tokens = np.random.default_rng(0).integers(0, families.VOCABULARY, (3, 18))
    targets = np.arange(1, 18)[None] < np.array([[18], [10], [14]])
    segments = np.where(np.arange(18)[None] < np.array([[10], [14], [5]]), 1, 2)
    return Batch(
        mx.array(tokens),
        mx.array(np.flatnonzero(targets)),
        mx.array(tokens[:, 1:][targets]),
        mx.array(segments) if is_packed else None,
    )


def train(model: Any, rows: Any, add_up: Callable[[Any], Any]) -> dict[str, Any]:
    """Losses, first gradient, adapter and logits of STEPS AdamW steps. add_up: sums a flat gradient over ranks."""
    import mlx.core as mx
    import mlx.optimizers as optimizers
    import numpy as np
    from mlx.utils import tree_unflatten

    from thunder_train.worker.model import adapter_tensors, trainable
    from thunder_train.worker.train.step import local_sums, named

    # Epsilon is above the rounding error of gradients; otherwise Adam turns rounding errors into whole steps.
    optimizer = optimizers.AdamW(1e-3, eps=1e-6, bias_correction=True)
    losses, gradients = [], []
    for step in range(STEPS):
        mx.random.seed(step)
        gradient, loss, targets = local_sums(model, [rows])
        gradient = add_up(gradient) / targets
        optimizer.update(model, tree_unflatten(list(named(gradient, trainable(model)).items())))
        mx.eval(model.trainable_parameters(), optimizer.state)
        losses.append(loss.item())
        gradients.append(np.array(gradient))
    model.eval()
    logits = np.array(model(rows.tokens))
    return {"losses": np.array(losses), "gradient": gradients[0], "adapter": adapter_tensors(model), "logits": logits}


def run(name: str, ranks: Any, out: Path) -> dict[str, Any]:
    """Train a case whole and split: the largest differences, and the digest of the split model's adapter."""
    import numpy as np

    from thunder_train.worker.adapter import tensor_digest
    from thunder_train.worker.tensor_parallel import shard

    case = CASES[name]
    rows = batch(case.is_packed)
    whole = train(adapted(case), rows, lambda gradient: gradient)
    split = adapted(case)
    shard(split, ranks)
    parts = train(split, rows, ranks.sum)
    if ranks.rank == 0:
        save(out / name, len(split.layers), parts)
    return {
        "loss": float(np.abs(whole["losses"] / parts["losses"] - 1).max()),
        "gradient": float(np.abs(whole["gradient"] - parts["gradient"]).max() / np.abs(whole["gradient"]).max()),
        "adapter": max(
            float(np.abs(tensor - parts["adapter"][path]).max()) for path, tensor in whole["adapter"].items()
        ),
        "digest": tensor_digest(parts["adapter"]),
    }


def save(folder: Path, layers: int, trained: dict[str, Any]) -> None:
    """Write the adapter and logits of a split model."""
    import numpy as np
    from safetensors.numpy import save_file

    folder.mkdir(parents=True)
    save_file(trained["adapter"], folder / "adapters.safetensors")
    config = {"fine_tune_type": "lora", "num_layers": layers, "lora_parameters": {**LORA, "dropout": 0.0}}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    np.save(folder / "logits.npy", trained["logits"])


def memory(ranks: Any) -> float:
    """Bytes of a split model's weights, as a fraction of the whole model's. The shape has almost no unsplit weights."""
    import mlx.core as mx
    from mlx_lm.models import llama

    from thunder_train.worker.tensor_parallel import shard

    before = mx.get_active_memory()
    shape = {"hidden_size": 256, "intermediate_size": 2048, "num_attention_heads": 8, "num_key_value_heads": 8}
    arguments = llama.ModelArgs("llama", num_hidden_layers=2, rms_norm_eps=1e-5, vocab_size=8, **shape)
    model = llama.Model(arguments)
    mx.eval(model.parameters())
    whole = mx.get_active_memory() - before
    shard(model, ranks)
    return (mx.get_active_memory() - before) / whole


if __name__ == "__main__":
    enter(main)
