"""One rank of the tensor-parallel tests: trains each case alone and with the others, and writes how far they differ.

Writes OUT/rank-N.json and, on rank 0, for each case OUT/CASE/ with the adapter in mlx-lm's form and the split model's
logits. Started by thunder_train.launch.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from tests.worker import families
from thunder_train.worker.entry import enter

CASES = {f"{name}-{bits}": (name, bits, 0.0) for name in families.CONFIGS for bits in (0, 4)} | {
    "dropout": ("gemma4_e2b", 0, 0.3)
}
"""Case -> model, bits, LoRA dropout."""
LORA = {"rank": 4, "scale": 2.0}
STEPS = 5
MEMORY_CASE = "llama"


def main(argv: list[str]) -> None:
    """Run every case."""
    from thunder_train.worker.ranks import join

    parser = argparse.ArgumentParser()
    parser.add_argument("--hostfile", type=Path)
    parser.add_argument("--out", type=Path)
    flags = parser.parse_args(argv)
    ranks = join(flags.hostfile)
    facts = {case: run(case, ranks, flags.out) for case in CASES}
    facts["memory"] = memory(ranks)
    (flags.out / f"rank-{ranks.rank}.json").write_text(json.dumps(facts))


def adapted(case: str) -> Any:
    """The case's model with a random adapter, both halves of it."""
    import mlx.core as mx
    from mlx.utils import tree_unflatten

    from thunder_train.worker import model

    name, bits, dropout = CASES[case]
    made = families.build(name, bits)
    model.add_lora(made, model.Lora(len(made.layers), LORA["rank"], LORA["scale"], dropout), seed=0)
    trained = model.trainable(made)
    made.update(tree_unflatten([(path, 0.1 * mx.random.normal(leaf.shape)) for path, leaf in trained.items()]))
    mx.eval(made.parameters())
    return made


def rows() -> tuple[Any, Any]:
    """(3, 18) tokens and the (3, 17) mask of their targets, rows of unequal length."""
    import mlx.core as mx
    import numpy as np

    tokens = np.random.default_rng(0).integers(0, families.VOCABULARY, (3, 18))
    return mx.array(tokens), mx.array(np.arange(17)[None] < np.array([[17], [9], [13]]), mx.float32)


def trained(model: Any, add_up: Any) -> dict[str, Any]:
    """Losses, first gradient and adapter of a few AdamW steps. add_up: sums a flat gradient over ranks."""
    import mlx.core as mx
    import mlx.nn as nn
    import mlx.optimizers as optimizers
    import numpy as np

    from thunder_train.worker.loop import flatten, unflatten
    from thunder_train.worker.model import adapter, trainable

    def loss_sum(model: Any, tokens: Any, mask: Any) -> Any:
        return (nn.losses.cross_entropy(model(tokens[:, :-1]), tokens[:, 1:]) * mask).sum()

    tokens, mask = rows()
    optimizer, losses, first = optimizers.AdamW(1e-3, bias_correction=True), [], None
    model.train()
    for step in range(STEPS):
        mx.random.seed(step)
        loss, gradients = nn.value_and_grad(model, loss_sum)(model, tokens, mask)
        gradient = add_up(flatten(gradients)) / mask.sum()
        first = np.array(gradient) if first is None else first
        optimizer.update(model, unflatten(gradient, trainable(model)))
        mx.eval(model.trainable_parameters(), optimizer.state)
        losses.append(loss.item())
    model.eval()
    return {"losses": np.array(losses), "gradient": first, "adapter": adapter(model), "logits": np.array(model(tokens))}


def run(case: str, ranks: Any, out: Path) -> dict[str, Any]:
    """Train a case alone and split; the largest differences, and the digest of the split one's adapter."""
    import numpy as np
    from safetensors.numpy import save_file

    from thunder_train.worker.checkpoint import tensor_digest
    from thunder_train.worker.tensor_parallel import shard

    alone = trained(adapted(case), lambda gradient: gradient)
    split = adapted(case)
    shard(split, ranks)
    shared = trained(split, ranks.sum)
    if ranks.rank == 0:
        (out / case).mkdir(parents=True)
        save_file(shared["adapter"], out / case / "adapters.safetensors")
        config = {"num_layers": len(split.layers), "lora_parameters": {**LORA, "dropout": 0.0}}
        (out / case / "adapter_config.json").write_text(json.dumps(config))
        np.save(out / case / "logits.npy", shared["logits"])
    whole, parts = alone["adapter"], shared["adapter"]
    return {
        "loss": float(np.abs(alone["losses"] / shared["losses"] - 1).max()),
        "gradient": float(np.abs(alone["gradient"] - shared["gradient"]).max() / np.abs(alone["gradient"]).max()),
        "adapter": max(float(np.abs(whole[name] - parts[name]).max()) for name in whole),
        "digest": tensor_digest(parts),
    }


def memory(ranks: Any) -> float:
    """Bytes in use of a split model, as a share of the whole one's."""
    import mlx.core as mx

    from thunder_train.worker.tensor_parallel import shard

    before = mx.get_active_memory()
    model = families.build(MEMORY_CASE)
    whole = mx.get_active_memory() - before
    shard(model, ranks)
    return (mx.get_active_memory() - before) / whole


if __name__ == "__main__":
    enter(main)
