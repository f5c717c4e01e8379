"""Estimates the time of a step on this machine: times a model of one block and extrapolates to all blocks.

The block has the recipe's shape, quantisation and adapter, with random weights. Messages between ranks are not timed.
"""

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from thunder_train.worker import model
from thunder_train.worker.args import Settings
from thunder_train.worker.batching.batch import batch, loss_sum
from thunder_train.worker.batching.examples import Example
from thunder_train.worker.batching.plan import Pass
from thunder_train.worker.inspect.memory import ModelSizes, dtype

SMALL, LARGE = 256, 2048
"""Sizes of two vocabularies; the difference in time gives the time per vocabulary entry."""
ENOUGH_S = 0.3
"""Seconds of a pass from which on rows do not grow further: a CPU would need minutes for a large block."""
REPEATS = 3
LIMIT_S = 60.0
"""Seconds that a measurement may take."""
PASSES = 8
"""What a measurement of the shortest row takes, in forward passes of it."""
MUCH_SLOWER = 2.0
"""Times as long as with float32 from which on a report says so."""


class TooSlowError(Exception):
    """A measurement would take longer than LIMIT_S; the text says what took so long."""


@dataclass(frozen=True)
class Times:
    """Seconds of a pass over `tokens` tokens.

    block_s: forward and backward through one trained block; forward_s: forward through one block; entry_s: per entry of
    the vocabulary, where each token is a target.
    """

    tokens: int
    block_s: float
    forward_s: float
    entry_s: float
    device: str

    def seconds(
        self, sizes: ModelSizes, settings: Settings, tokens: float, targets: float, parts: int, kept: int = 0
    ) -> float:
        """Seconds of a step in which a rank computes `tokens` tokens and the logits of `targets` of them.

        parts: ranks that share each block. kept: first blocks whose output is kept from before.
        """
        trained = settings.num_layers
        blocks = trained * self.block_s + (sizes.layers - trained - kept) * self.forward_s
        blocks += trained * self.forward_s * settings.grad_checkpoint  # checkpointed blocks run forward twice
        return (blocks / parts * tokens + sizes.vocabulary * self.entry_s * targets) / self.tokens


def measure(config: dict[str, Any], settings: Settings, row_tokens: int) -> Times:
    """Time one block on a row that doubles in length up to row_tokens, or until a pass takes ENOUGH_S.

    Raises TooSlowError if a row of one token says that this would take longer than LIMIT_S.
    """
    if mx.default_device().type == mx.cpu:
        mx.disable_compile()  # as in training
    small, large = (_one_block(config, vocabulary, settings) for vocabulary in (SMALL, LARGE))
    tokens, longest = 1, row_tokens - 1
    first_s = _fastest(_forward(small, tokens), 1)
    if first_s * PASSES > LIMIT_S:
        one = f"one token took {first_s:.0f} s forward through one block of {config_layers(config)}"
        raise TooSlowError(f"the probe of one step would take longer than {LIMIT_S:.0f} s: {one}")
    while (block_s := _fastest(_pass(small, tokens), 1)) < ENOUGH_S and tokens < longest:
        tokens = min(2 * tokens, longest)
    repeats = REPEATS if block_s < 2 * ENOUGH_S else 1
    block_s, large_s = _fastest(_pass(small, tokens), repeats), _fastest(_pass(large, tokens), repeats)
    forward_s = _fastest(_forward(small, tokens), repeats)
    entry_s = max(0.0, large_s - block_s) / (LARGE - SMALL)
    return Times(tokens, block_s, forward_s, entry_s, mx.default_device().type.name)


def is_on_cpu() -> bool:
    """Whether this machine computes on its processor."""
    return bool(mx.default_device().type == mx.cpu)


def config_layers(config: dict[str, Any]) -> int:
    """Blocks of a model."""
    return int((config.get("text_config") or config)["num_hidden_layers"])


def in_float32(config: dict[str, Any]) -> dict[str, Any]:
    """The config.json of the same model with float32 weights."""
    config = copy.deepcopy(config)
    for part in (config, config.get("text_config") or {}):
        for key in ("quantization", "quantization_config"):
            part.pop(key, None)
        part |= {key: "float32" for key in ("torch_dtype", "dtype") if key in part}
    return config | {"torch_dtype": "float32"}


def why_slow(config: dict[str, Any]) -> str:
    """What a CPU is slow at in such weights; "" for float32."""
    bits = (config.get("quantization") or {}).get("bits")
    if bits:
        return f"MLX multiplies {bits}-bit weights row by row on a CPU"
    kind = dtype(config)
    return "" if kind == "float32" else f"MLX has no fast matrix product of {kind} on this CPU"


def _one_block(config: dict[str, Any], vocabulary: int, settings: Settings) -> nn.Module:
    """The recipe's model with a single block and its adapter."""
    config = copy.deepcopy(config)
    for text in (config, config.get("text_config") or {}):
        small = {"num_hidden_layers": 1, "vocab_size": vocabulary, "vocab_size_per_layer_input": vocabulary}
        small |= {"sliding_window_pattern": 1, "num_kv_shared_layers": 0, "pad_token_id": 0}
        text |= {key: value for key, value in small.items() if key in text}
        if "layer_types" in text:
            text["layer_types"] = text["layer_types"][-1:]
    base = model.build(config)
    base.set_dtype(getattr(mx, dtype(config)))
    lora = model.Lora(1, settings.lora_rank, settings.scale, settings.lora_dropout, settings.lora_keys)
    model.add_lora(base, model.resolved(base, lora), seed=0)
    mx.eval(base.parameters())
    return base


def _pass(network: nn.Module, tokens: int) -> Callable[[], Any]:
    """A forward and backward pass over one row."""
    rows = [Example("", (1,) * (tokens + 1), ((1, tokens + 1),))]
    one_row, run = batch(rows, Pass(((0,),), tokens)), nn.value_and_grad(network, loss_sum)
    return lambda: run(network, one_row)


def _forward(network: nn.Module, tokens: int) -> Callable[[], Any]:
    row = mx.ones((1, tokens), mx.int32)
    return lambda: network(row)


def _fastest(run: Callable[[], Any], repeats: int) -> float:
    """Seconds of the fastest run: other work on the machine can only slow a run down."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        mx.eval(run())
        seconds.append(time.perf_counter() - start)
    return min(seconds)
