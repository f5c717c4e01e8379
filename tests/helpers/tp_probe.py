"""One rank of the tensor-parallel tests: trains each case alone and with the others, and writes how far they differ.

Writes OUT/rank-N.json and, on rank 0, for each case OUT/CASE/ with the adapter in mlx-lm's form and the split model's
logits. Started by thunder_train.launch.
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
    """A model of families.CONFIGS, and what is special about its training."""

    name: str
    bits: int = 0
    dropout: float = 0.0
    is_packed: bool = False
    is_checkpointed: bool = False


CASES = {f"{name}-{bits}": Case(name, bits) for name in families.CONFIGS for bits in (0, 4)} | {
    "dropout": Case("qwen2", dropout=0.3),
    "packed": Case("gemma4_e2b", is_packed=True),
    # Last, for it patches the class of the blocks.
    "checkpointed": Case("gemma4_e2b", 4, is_checkpointed=True),
}
LORA = {"rank": 4, "scale": 2.0}
STEPS = 5


def main(argv: list[str]) -> None:
    """Run the cases that are asked for."""
    from thunder_train.worker.ranks import join

    parser = argparse.ArgumentParser()
    parser.add_argument("--hostfile", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--cases", type=lambda text: text.split(","))
    flags = parser.parse_args(argv)
    ranks = join(flags.hostfile)
    facts: dict[str, Any] = {case: run(case, ranks, flags.out) for case in flags.cases}
    facts["memory"] = memory(ranks)
    (flags.out / f"rank-{ranks.rank}.json").write_text(json.dumps(facts))


def adapted(case: Case) -> Any:
    """The case's model with a random adapter, both halves of it."""
    import mlx.core as mx
    from mlx.utils import tree_unflatten

    from thunder_train.worker import model

    made = families.build(case.name, case.bits)
    lora = model.Lora(len(made.layers), LORA["rank"], LORA["scale"], case.dropout)
    model.add_lora(made, lora, seed=0)
    trained = model.trainable(made)
    made.update(tree_unflatten([(path, 0.1 * mx.random.normal(leaf.shape)) for path, leaf in trained.items()]))
    if case.is_checkpointed:
        model.checkpoint_blocks(made)
    mx.eval(made.parameters())
    return made


def batch(is_packed: bool) -> Any:
    """Three sequences of unequal length; packed: two rows in two of them, one in the last but for its padding."""
    import mlx.core as mx
    import numpy as np

    from thunder_train.worker.batching.batch import Batch

    tokens = np.random.default_rng(0).integers(0, families.VOCABULARY, (3, 18))
    targets = np.arange(1, 18)[None] < np.array([[18], [10], [14]])
    segments = np.where(np.arange(18)[None] < np.array([[10], [14], [5]]), 1, 2)
    return Batch(
        mx.array(tokens),
        mx.array(targets, mx.float32),
        mx.array(segments) if is_packed else None,
        ("a", "b", "c"),
        int(targets.sum()),
    )


def train(model: Any, rows: Any, add_up: Callable[[Any], Any]) -> dict[str, Any]:
    """Losses, first gradient, adapter and logits of a few AdamW steps. add_up: sums a flat gradient over ranks."""
    import mlx.core as mx
    import mlx.optimizers as optimizers
    import numpy as np
    from mlx.utils import tree_unflatten

    from thunder_train.worker.model import adapter_tensors, trainable
    from thunder_train.worker.train.step import local_sums, named

    # Epsilon is above the rounding of gradients, or Adam makes whole steps of what should be nothing.
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
    """Train a case alone and split; the largest differences, and the digest of the split one's adapter."""
    import numpy as np

    from thunder_train.worker.adapter import tensor_digest
    from thunder_train.worker.tensor_parallel import shard

    case = CASES[name]
    rows = batch(case.is_packed)
    alone = train(adapted(case), rows, lambda gradient: gradient)
    split = adapted(case)
    shard(split, ranks)
    together = train(split, rows, ranks.sum)
    if ranks.rank == 0:
        save(out / name, len(split.layers), together)
    whole, parts = alone["adapter"], together["adapter"]
    return {
        "loss": float(np.abs(alone["losses"] / together["losses"] - 1).max()),
        "gradient": float(np.abs(alone["gradient"] - together["gradient"]).max() / np.abs(alone["gradient"]).max()),
        "adapter": max(float(np.abs(whole[path] - parts[path]).max()) for path in whole),
        "digest": tensor_digest(parts),
    }


def save(folder: Path, layers: int, trained: dict[str, Any]) -> None:
    """Write adapter and logits of a split model."""
    import numpy as np
    from safetensors.numpy import save_file

    folder.mkdir(parents=True)
    save_file(trained["adapter"], folder / "adapters.safetensors")
    config = {"fine_tune_type": "lora", "num_layers": layers, "lora_parameters": {**LORA, "dropout": 0.0}}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    np.save(folder / "logits.npy", trained["logits"])


def memory(ranks: Any) -> float:
    """Bytes of weights that a split model holds, as a share of the whole one's. No weight is shared by all ranks."""
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
