"""What a training will need, from config.json and the flags of launch.sh: memory, messages, seconds of a step.

No weight is read. Bytes of activations are a formula with measured factors (memory.py); seconds come from a short probe
on this machine (step_seconds.py). Writes one JSON object.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thunder_train import ThunderError, raise_all
from thunder_train.core import files
from thunder_train.worker.args import Parser, Settings, parse
from thunder_train.worker.bootstrap import enter

if TYPE_CHECKING:
    import mlx.nn as nn

    from thunder_train.worker.batching.plan import Pass
    from thunder_train.worker.inspect.memory import Facts

USABLE_BYTES = round(0.75 * 16e9)
"""What a training may have of a 16 GB Mac: macOS lets the GPU have about three quarters of the memory."""


@dataclass(frozen=True)
class Choice:
    """A strategy and what it asks of a rank. parts: ranks that share a block; passes: of a step."""

    strategy: str
    parts: int
    passes: "list[Pass]"
    needs: dict[str, int]

    @property
    def is_split(self) -> bool:
        """Whether blocks are split."""
        return self.parts > 1

    @property
    def tokens(self) -> int:
        """Computed by a rank in a step, padding included."""
        return sum(len(each.sequences) * each.width for each in self.passes)


@dataclass(frozen=True)
class Training:
    """What is reckoned. base: the model with its adapter; row_tokens: of each row."""

    base: "nn.Module"
    sizes: "Facts"
    settings: Settings
    ranks: int
    row_tokens: int

    def choice(self, strategy: str, weight: float | None = None) -> Choice:
        """What a rank of that weight has to do; without one, the rank that has most."""
        from thunder_train.worker.inspect.memory import memory

        weights = self._weights(strategy)
        rows = self.settings.rows_per_step(len(weights)) * (weight or max(weights)) / sum(weights)
        plan = passes(self.base, self.settings, self.row_tokens, math.ceil(round(rows, 6)))
        largest = max(plan, key=lambda each: len(each.sequences) * each.width)
        parts = self.ranks // len(weights)
        return Choice(strategy, parts, plan, memory(self.base, self.sizes, largest, self.settings, parts))

    def rank_peaks(self, chosen: Choice) -> list[int]:
        """Bytes of each rank at its peak."""
        weights = self._weights(chosen.strategy)
        peaks = {weight: self.choice(chosen.strategy, weight).needs["peak"] for weight in set(weights)}
        return [peaks[weight] for weight in weights] * chosen.parts

    def _weights(self, strategy: str) -> tuple[float, ...]:
        """Of those that share the rows: the ranks, or all of them together."""
        spread = self.ranks if strategy == "data" else 1
        return self.settings.weights if len(self.settings.weights) == spread else (1.0,) * spread


def passes(model: "nn.Module", settings: Settings, row_tokens: int, rows: int) -> "list[Pass]":
    """The forward passes of a rank in a step of so many rows, all as long as this; as the training plans them."""
    from thunder_train.worker.batching.loader import costs_of
    from thunder_train.worker.batching.plan import plan
    from thunder_train.worker.batching.tokens import Example

    costs = costs_of(model, [Example("", (0,) * row_tokens, ((1, row_tokens),))], settings.micro_tokens)
    if settings.packing == "never":
        costs = replace(costs, is_packed=False)
    return plan([row_tokens] * rows, costs)


def report(
    config: dict[str, Any], settings: Settings, ranks: int, row_tokens: int, is_timed: bool = True
) -> dict[str, Any]:
    """All that the table shows. Raises ThunderError as the training would: layers, keys, a model it cannot split.

    is_timed False: no time of a step, which takes seconds to measure.
    """
    from thunder_train.worker import model, tensor_parallel
    from thunder_train.worker.inspect import step_seconds
    from thunder_train.worker.inspect.memory import facts

    base = model.build(config)
    parameters = model.parameters(base)
    misfits = tensor_parallel.problems(base, ranks) if ranks > 1 else []
    if settings.strategy == "tensor":
        raise_all(misfits)
    keys, kind = settings.lora_keys, settings.fine_tune_type
    model.add_lora(base, model.Lora(settings.num_layers, settings.lora_rank, keys=keys, kind=kind), settings.seed)
    training = Training(base, facts(config), settings, ranks, row_tokens)
    choices = {name: training.choice(name) for name in _possible(ranks, misfits)}
    peaks = {name: choice.needs["peak"] for name, choice in choices.items()}
    chosen = choices[settings.strategy]
    times = step_seconds.measure(config, settings, row_tokens) if is_timed else None
    return {
        "schema": "thunder.fit/1",
        "parameters": parameters,
        "trainable_parameters": model.trainable_parameters(base),
        "ranks": ranks,
        "strategy": settings.strategy,
        "bytes": chosen.needs,
        "peak_bytes": peaks,
        "rank_peak_bytes": training.rank_peaks(chosen),
        "message_bytes": _messages(training, chosen),
        "row_tokens": row_tokens,
        "rows_per_step": settings.rows_per_step(1 if chosen.is_split else ranks),
        "passes": [{"sequences": len(each.sequences), "width": each.width} for each in chosen.passes],
        "seconds_per_step": round(times.seconds(training.sizes, settings, chosen.tokens, chosen.parts), 4)
        if times
        else None,
        "probe_tokens": times.tokens if times else None,
        "device": times.device if times else None,
        "usable_bytes": USABLE_BYTES,
        "fits_16_gb_mac": chosen.needs["peak"] <= USABLE_BYTES,
        "advice": advice(peaks, [error.what for error in misfits]),
    }


def _possible(ranks: int, misfits: list[ThunderError]) -> list[str]:
    return ["data", "tensor"] if ranks > 1 and not misfits else ["data"]


def _messages(training: Training, chosen: Choice) -> dict[str, int]:
    """Bytes that a rank hands to the all-reduce in a step: one gradient, and what split blocks add up."""
    from thunder_train.worker import model

    sizes, ranks = training.sizes, training.ranks
    if ranks == 1:
        return {"gradient": 0, "blocks": 0}
    # Forward everywhere, backward where it is trained.
    sums = 2 * (sizes.layers + training.settings.num_layers) * chosen.is_split
    return {
        # The loss, the targets, a stop flag; whether and when each rank is done.
        "gradient": 4 * (model.trainable_parameters(training.base) + 3 + 2 * ranks),
        "blocks": sums * chosen.tokens * sizes.width * sizes.item_size,
    }


def advice(peaks: Mapping[str, int], misfits: list[str]) -> str:
    """Which strategy to take on Macs of 16 GB, in one sentence. peaks: bytes of a rank by strategy that is possible."""
    if peaks["data"] <= USABLE_BYTES:
        return "data: the whole model fits on each rank, and one message a step is the least there can be"
    if peaks.get("tensor", USABLE_BYTES + 1) <= USABLE_BYTES:
        return "tensor: a rank's share fits, the whole model does not"
    smaller = "lower micro_tokens or max_seq_len, set grad_checkpoint, or take a model of fewer bits"
    why = f" ({'; '.join(misfits)})" if misfits else ""
    return f"does not fit a 16 GB Mac in {' or '.join(peaks)} strategy{why}: {smaller}"


def main(argv: list[str]) -> None:
    """Write the report of the flags' training."""
    parser = Parser(
        prog="thunder_train.worker.inspect.fit", description="what a training needs; takes launch.sh's flags, too"
    )
    parser.add_argument("--config", type=Path, required=True, help="config.json of an mlx-lm model")
    parser.add_argument("--ranks", type=int, required=True, help="ranks that train together")
    parser.add_argument("--row-tokens", type=int, default=0, help="longest row; 0: as long as --max-seq-len allows")
    parser.add_argument("--memory-only", action="store_true", help="do not measure the time of a step")
    parser.add_argument("--output", type=Path, required=True, help="JSON file to write")
    flags, rest = parser.parse_known_args(argv)
    settings = parse(rest)
    row_tokens = flags.row_tokens or settings.max_seq_len
    hint = "run `./doit model` for it"
    config = files.read_json(flags.config, hint=hint)
    files.write_json(flags.output, report(config, settings, flags.ranks, row_tokens, not flags.memory_only))


if __name__ == "__main__":
    enter(main)
