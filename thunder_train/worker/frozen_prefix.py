"""Keeps the output of the frozen blocks below the adapter: a row's never changes, so it is computed once.

Later epochs and validations read it, and compute only the blocks from the first adapted one on. The idea is that of PAC
(Ouyang et al. 2024, arXiv:2408.10746) and Skip2-LoRA (Matsutani et al. 2024, arXiv:2410.21073), here for ordinary LoRA
and exact: a row is computed alone, so its numbers depend on nothing else, neither on the rows beside it nor on ranks,
epochs and restarts. Where it is laid out in a packed sequence afterwards does not matter, for rotary embeddings depend
on the distance of two tokens only.

No forward code of a family is needed: a block that records its result, or returns a recorded one, takes the place of
each frozen block while the model runs. mlx is lazy: what a replaced block was to be given is never computed.

Shapes: T tokens that the model reads of a row, D the model's width, H key/value heads of a block, S their size.
"""

import contextlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten

from thunder_train import ThunderError
from thunder_train.worker import head
from thunder_train.worker.batching.batch import Batch, Place
from thunder_train.worker.batching.examples import Example
from thunder_train.worker.batching.loader import width

FAMILIES = head.FAMILIES
"""Modules of mlx-lm for whose models tests show that loss and gradient equal those of the whole model."""
IN_MEMORY = 1_000_000_000
"""Bytes that are kept in memory; more go to a file."""

Arrays = list["np.ndarray[Any, Any]"]
"""What is kept of a row: (T, D) output of the last frozen block, and (T, H, S) keys, then values, of each frozen block
whose keys and values later blocks use, as in Gemma 4."""


def depth(model: nn.Module) -> int:
    """Number of frozen blocks below the first that is trained; 0 if the embedding is trained."""
    trained = [name for name, _ in tree_flatten(model.trainable_parameters())]
    return first_block(trained, len(model.layers))


def first_block(names: Sequence[str], blocks: int) -> int:
    """The first block that parameters of these names belong to; 0 if one belongs to what comes before the blocks."""
    parts = [name.split(".") for name in names]
    if any("layers" not in each and "lm_head" not in each for each in parts):
        return 0
    return min((int(each[each.index("layers") + 1]) for each in parts if "layers" in each), default=blocks)


def why_not_kept(keep_prefix: str, model: nn.Module, epochs: float) -> str:
    """Why a training does not keep the output of the frozen blocks; "" if it does. epochs: how often it reads a row.

    It follows from recipe, rows and model alone: a machine with less memory must compute the same.
    """
    if keep_prefix == "never":
        return "keep_prefix is off"
    return "rows are read less than twice" if epochs < 2 else problem(model, depth(model))


def problem(model: nn.Module, frozen: int) -> str:
    """Why the output of a model's first `frozen` blocks is not kept; "" if it can be."""
    family = head.family(head.text_model(model))
    if family not in FAMILIES:
        return f"this is tested for {', '.join(FAMILIES)}, not for {family}"
    return "" if frozen else "no layer is frozen"


def token_bytes(model: nn.Module, frozen: int) -> int:
    """Bytes that are kept of a token."""
    kinds = (leaf.dtype for _, leaf in tree_flatten(head.text_model(model).model.layers[0].parameters()))
    return token_numbers(model, frozen) * next(kind.size for kind in kinds if mx.issubdtype(kind, mx.floating))


def token_numbers(model: nn.Module, frozen: int) -> int:
    """Numbers that are kept of a token."""
    body = head.text_model(model).model
    heads = [body.layers[number].self_attn for number in _shared(body, frozen)]
    return width(model) + sum(2 * int(each.n_kv_heads * each.head_dim) for each in heads)


def _shared(body: nn.Module, frozen: int) -> tuple[int, ...]:
    """The frozen blocks whose keys and values a later block uses."""
    users = getattr(body, "previous_kvs", ())[frozen:]
    return tuple(sorted({number for number in users if number < frozen}))


def keepers(model: nn.Module, frozen: int, tokens: Mapping[str, int], folder: Path) -> "dict[str, FrozenPrefix]":
    """What keeps the output of the first `frozen` blocks for each split. tokens: of each split; folder: for files."""
    is_in_memory = token_bytes(model, frozen) * sum(tokens.values()) <= IN_MEMORY
    return {name: FrozenPrefix(model, frozen, Store(folder, is_in_memory)) for name in tokens}


def share(model: nn.Module, frozen: int) -> float:
    """The part of a row's cost in training that its first `frozen` blocks take.

    A block that trains has the backward pass in addition, which costs as much as the forward pass: its weights are
    frozen, so only its inputs get a gradient.
    """
    return frozen / (2 * len(model.layers) - frozen)


def replaying(prefix: "FrozenPrefix | None", batch: Batch) -> contextlib.AbstractContextManager[None]:
    """What to compute a batch within: nothing, if no output is kept."""
    return prefix.replaying(batch) if prefix else contextlib.nullcontext()


class _StandIn(nn.Module):
    """Takes the place of a block. Whatever else the model asks of a block, its kind for one, the block answers."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        object.__setattr__(self, "block", block)  # no child: its parameters are not the model's while it stands here

    def __getattr__(self, name: str) -> Any:
        return getattr(object.__getattribute__(self, "block"), name)


class _Recorder(_StandIn):
    """A frozen block that keeps its result."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        result = self.block(*args, **kwargs)
        object.__setattr__(self, "result", result)
        return result


class _Replayer(_StandIn):
    """A frozen block that returns what was recorded. states: (B, T, D), or None to pass on what it is given.

    more: what a block of Gemma 4 returns besides: keys and values, and the offset.
    """

    def __init__(self, block: nn.Module, states: mx.array | None, more: tuple[Any, ...]) -> None:
        super().__init__(block)
        object.__setattr__(self, "answer", (states, more))

    def __call__(self, x: mx.array, *_: Any, **__: Any) -> Any:
        states, more = self.answer
        states = x if states is None else states
        return (states, *more) if more else states


@dataclass
class Store:
    """The arrays of rows, in memory or, if they take more than IN_MEMORY, in a file that vanishes with the process."""

    folder: Path
    is_in_memory: bool
    rows: dict[int, Any] = field(default_factory=dict)
    """By row: its arrays, or their places in the file: offset, shape and type of each."""
    file: Any = None

    def __contains__(self, row: int) -> bool:
        return row in self.rows

    def add(self, row: int, arrays: Arrays) -> None:
        """Keep a row. Raises ThunderError when the disk is full."""
        if self.is_in_memory:
            self.rows[row] = arrays
            return
        try:
            if self.file is None:
                self.folder.mkdir(parents=True, exist_ok=True)
                self.file = tempfile.TemporaryFile(dir=self.folder)  # noqa: SIM115  (open until the process ends)
            self.rows[row] = [(self._append(array), array.shape, array.dtype) for array in arrays]
        except OSError as error:
            what = f"the output of frozen layers cannot be written: {error.strerror}"
            raise ThunderError(what, str(self.folder), 'free space, or set keep_prefix = "never"') from error

    def _append(self, array: "np.ndarray[Any, Any]") -> int:
        offset = self.file.seek(0, 2)
        self.file.write(np.ascontiguousarray(array).data)
        return int(offset)

    def get(self, row: int) -> Arrays:
        """The arrays of a row that was added."""
        if self.is_in_memory:
            arrays: Arrays = self.rows[row]
            return arrays
        return [self._read(*place) for place in self.rows[row]]

    def _read(self, offset: int, shape: tuple[int, ...], kind: Any) -> "np.ndarray[Any, Any]":
        self.file.seek(offset)
        size = int(np.prod(shape)) * np.dtype(kind).itemsize
        return np.frombuffer(self.file.read(size), kind).reshape(shape)


class FrozenPrefix:
    """The frozen blocks of a model, and what is kept of them for the rows of one split."""

    def __init__(self, model: nn.Module, frozen: int, store: Store) -> None:
        """model: one for whose first `frozen` blocks `problem` is ""; with or without its adapter."""
        self.model, self.depth, self.store = model, frozen, store
        self.kinds: list[mx.Dtype] = []
        self.body = head.text_model(model).model
        self.shared = _shared(self.body, frozen)

    @contextlib.contextmanager
    def replaying(self, batch: Batch) -> Iterator[None]:
        """Within it the model computes this batch from the kept output; rows that have none are computed before."""
        self._compute([place for place in batch.places if place.index not in self.store])
        kept = [self._laid_out(batch, number) for number in range(1 + 2 * len(self.shared))]
        with self._replaced(self._replayers(kept, batch)):
            yield

    def _compute(self, places: Sequence[Place]) -> None:
        """Compute and keep the rows at these places, each alone."""
        if not places:
            return
        is_training = self.model.training
        # Else dropout in the blocks above, whose result nobody asks for, would draw random numbers: a step that
        # computes rows would drop other inputs than one that finds them kept, as before a restart.
        self.model.eval()
        recorded = {place.index: self._recorded(place.row) for place in places}
        mx.eval(list(recorded.values()))  # all at once: a GPU is waited for once
        for index, arrays in recorded.items():
            self.kinds = [array.dtype for array in arrays]
            self.store.add(index, [np.array(_as_bits(array)) for array in arrays])
        self.model.train(is_training)

    def _recorded(self, row: Example) -> list[mx.array]:
        """What is kept of a row, not computed yet."""
        recorders = [_Recorder(block) for block in self.body.layers[: self.depth]]
        with self._replaced(recorders):
            self.model(mx.array([row.tokens[:-1]], mx.int32))
        last = recorders[-1].result
        states = [last[0] if isinstance(last, tuple) else last]
        pairs = [array for number in self.shared for array in recorders[number].result[1]]
        return [states[0][0], *(pair[0].swapaxes(0, 1) for pair in pairs)]

    def _laid_out(self, batch: Batch, number: int) -> mx.array:
        """(B, T, ...) array of this number of every row, where the batch has it; zeros elsewhere."""
        sample = self.store.get(batch.places[0].index)[number]
        room = np.zeros((*batch.shape, *sample.shape[1:]), sample.dtype)
        for place in batch.places:
            array = self.store.get(place.index)[number]
            room[place.line, place.start : place.start + len(array)] = array
        return mx.array(room).view(self.kinds[number])

    def _replayers(self, kept: Sequence[mx.array], batch: Batch) -> list[nn.Module]:
        starts = np.zeros(batch.shape, np.int32)
        for place in batch.places:
            starts[place.line, place.start : place.start + len(place.row.tokens) - 1] = place.start
        pairs = {
            number: (self._moved(number, kept[1 + 2 * i], starts), kept[2 + 2 * i].swapaxes(1, 2))
            for i, number in enumerate(self.shared)
        }
        is_tuple = hasattr(self.body, "previous_kvs")
        made = list[nn.Module]()
        for number, block in enumerate(self.body.layers[: self.depth]):
            more = (pairs.get(number, (None, None)), 0) if is_tuple else ()
            made.append(_Replayer(block, kept[0] if number == self.depth - 1 else None, more))
        return made

    def _moved(self, number: int, keys: mx.array, starts: "np.ndarray[Any, Any]") -> mx.array:
        """(B, H, T, S) keys of a block, turned from their positions in a row to those in the sequence.

        keys: (B, T, H, S). starts: (B, T) position of each token's row in its sequence.
        """
        if starts.any():
            each = keys.reshape(-1, keys.shape[2], 1, keys.shape[3])  # a token each: all of it moves by one distance
            rope = self.body.layers[number].self_attn.rope
            keys = rope(each, offset=mx.array(starts.reshape(-1))).reshape(keys.shape)
        return keys.swapaxes(1, 2)

    @contextlib.contextmanager
    def _replaced(self, stand_ins: Sequence[nn.Module]) -> Iterator[None]:
        whole = self.body.layers
        self.body.layers = [*stand_ins, *whole[self.depth :]]
        try:
            yield
        finally:
            self.body.layers = whole


def _as_bits(array: mx.array) -> mx.array:
    """numpy has no bfloat16: its bits are kept as whole numbers."""
    return array.view(mx.uint16) if array.dtype == mx.bfloat16 else array
