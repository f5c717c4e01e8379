"""Puts an adapter into the weights of its base: a model folder that any program loads which loads mlx-lm's.

Into packed weights (4 bits) an adapter does not go without a loss, because each weight is rounded to its grid again. So
the answers' logits of the folder, read from disk as anybody would read it, are compared with those of base and adapter.
"""

import itertools
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx_lm.utils
import numpy as np
from mlx.utils import tree_unflatten

from thunder_train import ThunderError
from thunder_train.core import files
from thunder_train.worker import chat, model, saved_adapter
from thunder_train.worker.batching import tokens
from thunder_train.worker.batching.examples import Example
from thunder_train.worker.evaluate_args import Fusing

ROWS, LONGEST = 8, 512
"""Rows that are compared, and most tokens of one."""
Logits = list["np.ndarray[Any, np.dtype[np.float32]]"]


def fuse(task: Fusing) -> dict[str, Any]:
    """Write the folder task.fused and return the comparison. Raises ThunderError for an adapter without layers."""
    saved_adapter.check(task.adapter_path)
    network, tokenizer = model.load(task.model, model.pinned_commit(task.model_lock))
    rows = _rows(task, chat.of(tokenizer, task))
    base = answer_logits(network, rows)
    saved_adapter.put_on(network, task.adapter_path)
    adapted = answer_logits(network, rows)
    layers = [(name, each.fuse(dequantize=task.dequantize)) for name, each in network.named_modules() if _fuses(each)]
    if not layers:
        raise ThunderError("has no layer that can be fused", str(task.adapter_path), "train it again")
    network.update_modules(tree_unflatten(layers))
    home = model.locate(task.model, model.pinned_commit(task.model_lock))
    config = files.read_json(home / "config.json")
    if task.dequantize:
        network = mlx_lm.utils.dequantize_model(network)
        for name in ("quantization", "quantization_config"):
            config.pop(name, None)
    _write(task, network, tokenizer, config, home)
    again = model.load(str(task.fused), "")[0]
    return {"layers": len(layers), "rows": len(rows), **compared(rows, base, adapted, answer_logits(again, rows))}


def _fuses(module: nn.Module) -> bool:
    return hasattr(module, "fuse")


def _rows(task: Fusing, spoken: chat.Chat) -> list[Example]:
    """The first rows of the test split, of the validation split where that has none, with answers."""
    for path in (task.test_data, task.valid_data):
        rows = tokens.read_all(path, spoken, cache=task.token_cache)
        short = list(itertools.islice((each for each in rows if each.targets and len(each.tokens) <= LONGEST), ROWS))
        if short:
            return short
    raise ThunderError("no row is short enough to compare answers", str(task.test_data), f"add one of {LONGEST} tokens")


def answer_logits(network: nn.Module, rows: Sequence[Example]) -> Logits:
    """Of each row the logits that predict its answer: (tokens of the answer, vocabulary)."""
    network.eval()
    logits = []
    for row in rows:
        out = network(mx.array([row.tokens[:-1]]))[0, row.first_target - 1 :].astype(mx.float32)
        logits.append(np.array(out, copy=True))
    return logits


def compared(rows: Sequence[Example], base: Logits, adapted: Logits, fused: Logits) -> dict[str, Any]:
    """Losses of the answers in nats per token, and the share of the adapter's effect that the folder keeps.

    kept: 1 - |fused - adapted| / |adapted - base| over all logits (root mean squares), at least 0; 1 for an adapter
    without an effect. same_words: share of tokens for which folder and adapter would write the same one.
    """
    effect = _distance(adapted, base)
    lost = _distance(fused, adapted)
    pairs = list(zip(fused, adapted, strict=True))
    same = sum(int((a.argmax(-1) == b.argmax(-1)).sum()) for a, b in pairs) / sum(len(a) for a, _ in pairs)
    losses = {name: _loss(rows, of) for name, of in (("base", base), ("adapter", adapted), ("fused", fused))}
    return {
        "loss": losses,
        "kept": round(max(0.0, 1 - lost / effect), 4) if effect else 1.0,
        "same_words": round(same, 4),
    }


def _distance(one: Logits, other: Logits) -> float:
    squares = sum(float(np.square(a - b, dtype=np.float64).sum()) for a, b in zip(one, other, strict=True))
    return math.sqrt(squares / sum(a.size for a in one))


def _loss(rows: Sequence[Example], logits: Logits) -> float:
    total, count = 0.0, 0
    for row, scores in zip(rows, logits, strict=True):
        targets = np.array(row.tokens[row.first_target :])
        top = scores.max(-1, keepdims=True)
        normal = np.log(np.exp(scores - top).sum(-1)) + top[:, 0]
        total += float((normal - scores[np.arange(len(targets)), targets]).sum())
        count += len(targets)
    return round(total / count, 6)


def _write(task: Fusing, network: nn.Module, tokenizer: Any, config: dict[str, Any], home: Path) -> None:
    """The folder: weights, config and tokenizer; the recipe's own chat template becomes the tokenizer's."""
    folder = task.fused
    try:
        folder.mkdir(parents=True)
        mlx_lm.utils.save_model(folder, network, donate_model=False)
        mlx_lm.utils.save_config(config, config_path=folder / "config.json")
        if task.chat_template:
            tokenizer.chat_template = files.read_text(dict(task.chat_files())["--chat-template"])
        tokenizer.save_pretrained(folder)
        if (home / "generation_config.json").is_file():
            shutil.copy(home / "generation_config.json", folder)
    except OSError as error:
        raise ThunderError(f"cannot be written: {error.strerror}", str(folder), "free or unlock it") from error
