"""How long a step takes on this machine: a model of one block is timed, and its times are multiplied.

The block has the recipe's shape, quantisation and adapter. Weights are random. Messages between ranks are not timed.
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
from thunder_train.worker.batching.plan import Pass
from thunder_train.worker.batching.tokens import Example
from thunder_train.worker.inspect.memory import Facts, dtype

SMALL, LARGE = 256, 2048
"""Two vocabularies: what the larger one costs more is the price of a word."""
ENOUGH_S = 0.3
"""A pass that takes so long is not made longer: a CPU needs minutes for a large block."""
FIRST_TOKENS = 32
TURNS = 3


@dataclass(frozen=True)
class Times:
    """Seconds of a pass of `tokens`: one trained block, one block forward alone, and a word of the vocabulary."""

    tokens: int
    block_s: float
    forward_s: float
    word_s: float
    device: str

    def seconds(self, sizes: Facts, settings: Settings, tokens: int, parts: int) -> float:
        """Of a step in which a rank computes so many tokens. parts: ranks that share a block."""
        trained = settings.num_layers
        blocks = trained * self.block_s + (sizes.layers - trained) * self.forward_s
        blocks += trained * self.forward_s * settings.grad_checkpoint
        return (blocks / parts + sizes.vocabulary * self.word_s) * tokens / self.tokens


def measure(config: dict[str, Any], settings: Settings, row_tokens: int) -> Times:
    """Time a block on rows that grow up to row_tokens, or until a pass takes long enough."""
    if mx.default_device().type == mx.cpu:
        mx.disable_compile()  # as in training
    small, large = (_one_block(config, words, settings) for words in (SMALL, LARGE))
    tokens = min(FIRST_TOKENS, row_tokens - 1)
    while _fastest(_pass(small, tokens), 1) < ENOUGH_S and tokens < row_tokens - 1:
        tokens = min(2 * tokens, row_tokens - 1)
    block_s, wide_s = _fastest(_pass(small, tokens), TURNS), _fastest(_pass(large, tokens), TURNS)
    forward_s = _fastest(_forward(small, tokens), TURNS)
    word_s = max(0.0, wide_s - block_s) / (LARGE - SMALL)
    return Times(tokens, block_s, forward_s, word_s, mx.default_device().type.name)


def _one_block(config: dict[str, Any], words: int, settings: Settings) -> nn.Module:
    """The recipe's model with a single block, adapter included."""
    config = copy.deepcopy(config)
    for text in (config, config.get("text_config", {})):
        small = {"num_hidden_layers": 1, "vocab_size": words, "vocab_size_per_layer_input": words}
        small |= {"sliding_window_pattern": 1, "num_kv_shared_layers": 0, "pad_token_id": 0}
        text |= {key: value for key, value in small.items() if key in text}
        if "layer_types" in text:
            text["layer_types"] = text["layer_types"][-1:]
    base = model.build(config)
    base.set_dtype(getattr(mx, dtype(config)))
    lora = model.Lora(1, settings.lora_rank, settings.lora_scale, settings.lora_dropout, settings.lora_keys)
    model.add_lora(base, lora, seed=0)
    mx.eval(base.parameters())
    return base


def _pass(network: nn.Module, tokens: int) -> Callable[[], Any]:
    """A forward and backward pass over one row."""
    rows = [Example("", (1,) * (tokens + 1), ((1, tokens + 1),))]
    made, run = batch(rows, Pass(((0,),), tokens)), nn.value_and_grad(network, loss_sum)
    return lambda: run(network, made)


def _forward(network: nn.Module, tokens: int) -> Callable[[], Any]:
    words = mx.ones((1, tokens), mx.int32)
    return lambda: network(words)


def _fastest(run: Callable[[], Any], turns: int) -> float:
    """Seconds of the fastest of some runs: whatever else the machine does can only slow one down."""
    seconds = []
    for _ in range(turns):
        start = time.perf_counter()
        mx.eval(run())
        seconds.append(time.perf_counter() - start)
    return min(seconds)
