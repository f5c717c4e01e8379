"""The cross-entropy of target tokens from their hidden states, without the logits of all tokens.

Shapes: N targets, D the model's width, V words of the vocabulary. An (N, V) array in float32 takes 8.6 GB for 8,192
targets and Gemma's 262,144 words, several times over. So a block of rows and words is computed at a time, and forgotten
before the next: for the loss, logsumexp is kept up to date as the blocks come (Milakov and Gimelshein 2018,
arXiv:1805.02867); for the gradient of the hidden states, so is the sum of the output layer's weights under the softmax,
as attention does it (Dao et al. 2022, arXiv:2205.14135). Loss and gradient come out of one pass over the words, and no
logit is computed twice. Apple's cut cross-entropy (Wijmans et al. 2024, arXiv:2411.09009) has the same aim.
"""

import copy
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten, tree_unflatten

BLOCK, ROWS = 1 << 20, 512
"""On a CPU: logits of a block, 4 MB in float32, about four such arrays at a time; and its most rows. With fewer rows, a
matrix product spends its time on reading the weights.
"""
GPU_BLOCK, GPU_ROWS = 1 << 22, 2048
"""The same on a GPU, where every operation costs a launch: small blocks are most of a step's operations
(benchmarks/TRAIN.md). Not measured on a GPU.
"""
FAMILIES = (
    "cohere", "cohere2", "deepseek", "deepseek_v3", "ernie4_5", "gemma", "gemma2", "gemma3_text", "gemma4_text", "glm",
    "glm4", "glm4_moe", "gpt_oss", "granite", "granitemoe", "helium", "internlm3", "llama", "mimo", "mixtral",
    "nemotron", "olmo2", "olmo3", "olmoe", "phi", "phi3", "phimoe", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe",
    "smollm3", "stablelm", "starcoder2",
)  # fmt: skip
"""Modules of mlx-lm for whose models tests show that loss and gradient equal those of all logits."""
WRAPPERS = ("gemma3", "gemma4", "mistral3")
"""Modules of mlx-lm whose models wrap a text model and add nothing to its computation."""

Logits = Callable[[mx.array], mx.array]


@dataclasses.dataclass(frozen=True)
class Head:
    """The part of a model behind its blocks. owner: the module of the model that holds the blocks' module and calls
    the output layer; layer: the output layer, or the embedding that stands in for it; finish: what the model makes of
    that layer's result, such as a soft cap; each logit alone.
    """

    owner: nn.Module
    layer: nn.Module
    finish: Logits

    def hidden(self, tokens: mx.array, cache: Any) -> mx.array:
        """(B, T, D): what the output layer is given for (B, T) tokens."""
        states: mx.array = self.owner.model(tokens, cache=cache)
        return states

    def loss_sum(self, hidden: mx.array, labels: mx.array) -> mx.array:
        """Sum of N cross-entropies in nats, float32. hidden: (N, D). labels: (N,) right words.

        In eval mode its gradient is right as well, but takes the memory of all logits.
        """
        weights = Weights.of(self.layer)
        if weights is None or tree_flatten(self.layer.trainable_parameters()):
            return _trained(hidden, labels, self)
        if self.owner.training:
            return _frozen(hidden, labels, weights, self.finish)
        parts = [mx.array(0.0)]
        for start, stop in _ranges(hidden.shape[0], block()[1]):
            parts.append(_Rows(hidden[start:stop], labels[start:stop], weights, self.finish).loss(parts[-1]))
        return mx.stack(parts).sum()

    def logits(self, hidden: mx.array) -> mx.array:
        """(N, V) float32 logits of (N, D) hidden states."""
        apply = self.layer.as_linear if hasattr(self.layer, "as_linear") else self.layer
        return self.finish(apply(hidden)).astype(mx.float32)


def of(model: nn.Module) -> Head | None:
    """The head of a model; None for a family that no test covers, whose logits are computed as a whole."""
    owner = text_model(model)
    if family(owner) not in FAMILIES:
        return None
    called: list[str] = []
    rest = copy.copy(owner)
    rest.model = _Given(owner.model, _Same(called, "tied"))
    if "lm_head" in owner:
        rest.lm_head = _Same(called, "lm_head")
    rest(mx.zeros((1, 1, 1)))  # lazy: it computes nothing, and tells which layer this model calls
    layer = owner.lm_head if called == ["lm_head"] else owner.model.embed_tokens
    return Head(owner, layer, lambda logits: rest(logits))


def text_model(model: nn.Module) -> nn.Module:
    """The text model inside a wrapper, or the model itself."""
    return model.language_model if family(model) in WRAPPERS else model


def family(model: nn.Module) -> str:
    """The module of mlx-lm that a model is from."""
    return type(model).__module__.rpartition(".")[2]


def block() -> tuple[int, int]:
    """(logits, rows) of a block on the device that computes."""
    return (BLOCK, ROWS) if mx.default_device().type == mx.cpu else (GPU_BLOCK, GPU_ROWS)


class _Same(nn.Module):
    """An output layer that returns its input, and notes that it was called."""

    def __init__(self, called: list[str], name: str) -> None:
        super().__init__()
        self._called, self._name = called, name

    def __call__(self, x: mx.array) -> mx.array:
        self._called[:] = [self._name]
        return x

    as_linear = __call__


class _Given:
    """Stands in for the blocks of a model: whatever they are given is their result."""

    def __init__(self, blocks: nn.Module, embed_tokens: nn.Module) -> None:
        self._blocks, self.embed_tokens = blocks, embed_tokens

    def __call__(self, x: mx.array, *_: Any, **__: Any) -> mx.array:
        return x

    def __getattr__(self, name: str) -> Any:
        return getattr(self._blocks, name)


@dataclasses.dataclass(frozen=True)
class Weights:
    """The frozen (V, D) weights of an output layer, some of them, or one for each target. packing: arguments of MLX's
    functions for quantised weights.
    """

    weight: mx.array
    scales: mx.array | None = None
    biases: mx.array | None = None
    bias: mx.array | None = None
    packing: tuple[tuple[str, Any], ...] = ()

    @classmethod
    def of(cls, layer: nn.Module) -> "Weights | None":
        """The weights of a layer; None for one of another kind than those known here."""
        if type(layer) in (nn.Linear, nn.Embedding):
            return cls(layer.weight, bias=layer.get("bias"))
        if type(layer) in (nn.QuantizedLinear, nn.QuantizedEmbedding) and layer.get("global_scale") is None:
            packing = tuple((name, getattr(layer, name)) for name in ("group_size", "bits", "mode"))
            return cls(layer.weight, layer.scales, layer.get("biases"), layer.get("bias"), packing)
        return None

    @property
    def words(self) -> int:
        """Number of words."""
        return int(self.weight.shape[0])

    def __getitem__(self, words: Any) -> "Weights":
        """The weights of a slice of the words, or of an array of words."""
        scales, biases, bias = (None if part is None else part[words] for part in (self.scales, self.biases, self.bias))
        return Weights(self.weight[words], scales, biases, bias, self.packing)

    def logits(self, hidden: mx.array) -> mx.array:
        """(N, D) -> (N, V)."""
        if self.scales is None:
            product = hidden @ self.weight.T
        else:
            product = mx.quantized_matmul(
                hidden, self.weight, self.scales, self.biases, transpose=True, **dict(self.packing)
            )
        return product if self.bias is None else product + self.bias

    def pull(self, cotangent: mx.array) -> mx.array:
        """(N, V) gradient of the logits -> (N, D) gradient of the hidden states."""
        if self.scales is None:
            return cotangent @ self.weight
        return mx.quantized_matmul(
            cotangent, self.weight, self.scales, self.biases, transpose=False, **dict(self.packing)
        )

    def rows(self) -> mx.array:
        """The weights themselves, unpacked."""
        if self.scales is None:
            return self.weight
        return mx.dequantize(self.weight, self.scales, self.biases, **dict(self.packing))


def _frozen(hidden: mx.array, labels: mx.array, weights: Weights, finish: Logits) -> mx.array:
    """The loss of a head that is not trained: its gradient is made with it, and kept in place of the logits."""

    @mx.custom_function
    def both(states: mx.array) -> tuple[mx.array, ...]:
        losses, pulls = mx.array(0.0), list[mx.array]()
        for start, stop in _ranges(states.shape[0], block()[1]):
            rows = _Rows(states[start:stop], labels[start:stop], weights, finish)
            loss, pull = rows.loss_and_gradient([losses, *pulls[-1:]])
            losses = losses + loss
            pulls.append(pull)
        return losses, *pulls

    @both.vjp
    def scaled(_primal: mx.array, cotangents: Any, outputs: Any) -> mx.array:
        return mx.concatenate([pull * cotangents[0].astype(pull.dtype) for pull in outputs[1:]])

    result: Any = both(hidden)
    return result[0]


@dataclasses.dataclass(frozen=True)
class _Rows:
    """Targets, at most the rows of a block. Their logits are computed a block of words at a time, each after the one
    before: MLX would otherwise be free to compute all blocks at the same time.
    """

    hidden: mx.array
    labels: mx.array
    weights: Weights
    finish: Logits

    def loss(self, after: mx.array) -> mx.array:
        """The loss sum, computed after another array."""
        largest, total, right = self._start()
        for start, part in self._parts():
            raw = part.logits(mx.depends([self.hidden], [total, right, after])[0])
            logits = self._finished(raw)
            new = mx.maximum(largest, logits.max(axis=-1, keepdims=True))
            total = total * mx.exp(largest - new) + mx.exp(logits - new).sum(axis=-1, keepdims=True)
            right, largest = self._right(right, raw, start, part), new
        return (largest + mx.log(total) - self._finished(right)).sum()

    def loss_and_gradient(self, after: list[mx.array]) -> tuple[mx.array, mx.array]:
        """(loss sum, gradient of the hidden states), computed after other arrays."""
        largest, total, right = self._start()
        pulled = mx.zeros(self.hidden.shape)  # the weights, summed with the same factors as total
        for start, part in self._parts():
            raw = part.logits(mx.depends([self.hidden], [pulled, total, right, *after])[0])
            logits = self._finished(raw)
            new = mx.maximum(largest, logits.max(axis=-1, keepdims=True))
            factors, shrink = mx.exp(logits - new), mx.exp(largest - new)
            total = total * shrink + factors.sum(axis=-1, keepdims=True)
            pulled = pulled * shrink + part.pull(mx.vjp(self._finished, [raw], [factors])[1][0]).astype(mx.float32)
            right, largest = self._right(right, raw, start, part), new
        (chosen,), (slope,) = mx.vjp(self._finished, [right], [mx.ones(right.shape)])
        weights = self.weights[self.labels].rows().astype(mx.float32)
        gradient = pulled / total - slope.astype(mx.float32) * weights
        return (largest + mx.log(total) - chosen).sum(), gradient.astype(self.hidden.dtype)

    def _start(self) -> tuple[mx.array, mx.array, mx.array]:
        """Of each row: the largest logit so far, the sum of exp(logit - largest), the raw logit of the right word."""
        shape = (self.hidden.shape[0], 1)
        return mx.full(shape, -mx.inf), mx.zeros(shape), mx.zeros(shape, self.hidden.dtype)

    def _parts(self) -> Iterator[tuple[int, Weights]]:
        """The first word, and the weights, of each block."""
        for start, stop in _ranges(self.weights.words, max(1, block()[0] // self.hidden.shape[0])):
            yield start, self.weights[start:stop]

    def _finished(self, raw: mx.array) -> mx.array:
        return self.finish(raw).astype(mx.float32)  # 16 bits lose too much in a sum over 262,144 words

    def _right(self, right: mx.array, raw: mx.array, start: int, part: Weights) -> mx.array:
        """The raw logits of the right words, with those of this block."""
        is_here = (self.labels >= start) & (self.labels < start + part.words)
        mine = mx.take_along_axis(raw, mx.where(is_here, self.labels - start, 0)[:, None], axis=-1)
        return mx.where(is_here[:, None], mine, right)


def _trained(hidden: mx.array, labels: mx.array, head: Head) -> mx.array:
    """The loss of a head that has parameters to train, or is of an unusual kind: whole rows of logits, few at a time.

    The gradients of its parameters are made with the loss too, so no logits are kept for the backward pass.
    """
    leaves = dict(tree_flatten(head.layer.trainable_parameters()))
    names = sorted(leaves)

    def loss(states: mx.array, values: list[mx.array], words: mx.array) -> mx.array:
        head.layer.update(tree_unflatten(list(zip(names, values, strict=True))))
        return nn.losses.cross_entropy(head.logits(states), words, reduction="sum")

    @mx.custom_function
    def both(states: mx.array, *values: mx.array) -> tuple[mx.array, ...]:
        losses, pulls, sums = mx.array(0.0), list[mx.array](), [mx.zeros_like(value) for value in values]
        for start, stop in _ranges(states.shape[0], max(1, block()[0] // _words(head))):
            mine = mx.depends([states[start:stop]], [losses, *pulls[-1:], *sums])[0]
            part, (pull, more) = mx.value_and_grad(loss, (0, 1))(mine, list(values), labels[start:stop])
            losses, sums = losses + part, [old + new for old, new in zip(sums, more, strict=True)]
            pulls.append(pull)
        return losses, mx.concatenate(pulls), *sums

    @both.vjp
    def scaled(_primals: Any, cotangents: Any, outputs: Any) -> tuple[mx.array, ...]:
        return tuple(each * cotangents[0].astype(each.dtype) for each in outputs[1:])

    result: Any = both(hidden, *(leaves[name] for name in names))
    head.layer.update(tree_unflatten(list(leaves.items())))
    return result[0]


def _words(head: Head) -> int:
    return int(head.owner.model.embed_tokens.weight.shape[0])


def _ranges(count: int, size: int) -> Iterator[tuple[int, int]]:
    """(start, stop) of runs of `size` numbers that make up `count`."""
    for start in range(0, count, size):
        yield start, min(start + size, count)
