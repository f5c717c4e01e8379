"""Estimates what a training needs, from config.json and the flags of launch.sh: memory, message sizes, time of a step.

Reads no weights. Activation memory is a formula with measured factors (memory.py); seconds come from a short
measurement on this machine (step_seconds.py). Writes one JSON object, schema thunder.fit/1. With --check it only checks
that the model can get the adapter, and that the ranks can split it if they are to.
"""

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thunder_train import ThunderError, raise_all
from thunder_train.core import files, model_files
from thunder_train.core.mac_memory import METAL_SHARE
from thunder_train.worker.args import Parser, Settings, parse
from thunder_train.worker.bootstrap import enter

# mlx, and our modules that import it, are imported inside the functions: BLAS must be loaded before mlx.
if TYPE_CHECKING:
    import mlx.nn as nn

    from thunder_train.worker.batching.plan import Pass
    from thunder_train.worker.inspect.memory import ModelSizes
    from thunder_train.worker.model import Lora

USABLE_BYTES = round(METAL_SHARE * 16e9)
"""Memory of a 16 GB Mac that a training can use."""


@dataclass(frozen=True)
class Workload:
    """Work of one rank in a step. parts: ranks that share each block; memory: bytes by use, and their peak."""

    strategy: str
    parts: int
    passes: "list[Pass]"
    memory: dict[str, int]

    @property
    def is_split(self) -> bool:
        """Whether ranks share each block."""
        return self.parts > 1

    @property
    def tokens(self) -> int:
        """Tokens that a rank computes in a step, with padding."""
        return sum(len(each.sequences) * each.width for each in self.passes)


@dataclass(frozen=True)
class Training:
    """The training to estimate. model: base and adapter; row_tokens: tokens of each row."""

    model: "nn.Module"
    sizes: "ModelSizes"
    settings: Settings
    ranks: int
    row_tokens: int

    def workload(self, strategy: str, weight: float | None = None) -> Workload:
        """The work of a rank with this weight; by default of the rank with the largest weight."""
        from thunder_train.worker.inspect.memory import memory

        weights = self._weights(strategy)
        rows = self.settings.rows_per_step(len(weights)) * (weight or max(weights)) / sum(weights)
        # Rounded first: 6.000000001 rows from float division are 6 rows, not 7.
        plan = passes(self.model, self.settings, self.row_tokens, math.ceil(round(rows, 6)))
        largest = max(plan, key=lambda each: len(each.sequences) * each.width)
        parts = self.ranks // len(weights)
        return Workload(strategy, parts, plan, memory(self.model, self.sizes, largest, self.settings, parts))

    def rank_peaks(self, strategy: str) -> list[int]:
        """Peak bytes of each rank."""
        weights = self._weights(strategy)
        peaks = {weight: self.workload(strategy, weight).memory["peak"] for weight in set(weights)}
        return [peaks[weight] for weight in weights] * (self.ranks // len(weights))

    def _weights(self, strategy: str) -> tuple[float, ...]:
        """Weights of those that share the rows: each rank with the data strategy, else all ranks as one."""
        sharing = self.ranks if strategy == "data" else 1
        return self.settings.weights if len(self.settings.weights) == sharing else (1.0,) * sharing


def passes(model: "nn.Module", settings: Settings, row_tokens: int, rows: int) -> "list[Pass]":
    """A rank's forward passes for `rows` rows of row_tokens tokens, as the training plans them."""
    from thunder_train.worker.batching.loader import costs_of
    from thunder_train.worker.batching.plan import plan

    costs = costs_of(model, [row_tokens], settings.micro_tokens)
    if settings.packing == "never":
        costs = replace(costs, is_packed=False)
    return plan([row_tokens] * rows, costs)


def report(
    config: dict[str, Any], settings: Settings, ranks: int, row_tokens: int, is_timed: bool = True
) -> dict[str, Any]:
    """The estimate as JSON. is_timed: also measure the time of a step, which takes seconds.

    Raises ThunderError for layers, keys and models that the training would refuse, too.
    """
    from thunder_train.worker import model, tensor_parallel
    from thunder_train.worker.inspect.memory import model_sizes

    network = model.build(config)
    parameters = model.parameters(network)
    split_problems = tensor_parallel.problems(network, ranks) if ranks > 1 else []
    if settings.strategy == "tensor":
        raise_all(split_problems)
    wanted = model.resolved(network, lora(settings))
    model.add_lora(network, wanted, settings.seed)
    settings = replace(settings, num_layers=wanted.num_layers)
    training = Training(network, model_sizes(config), settings, ranks, row_tokens)
    strategies = ["data", "tensor"] if ranks > 1 and not split_problems else ["data"]
    workloads = {name: training.workload(name) for name in strategies}
    peaks = {name: each.memory["peak"] for name, each in workloads.items()}
    return {
        "schema": "thunder.fit/1",
        "parameters": parameters,
        "trainable_parameters": model.trainable_parameters(network),
        "ranks": ranks,
        "strategy": settings.strategy,
        "peak_bytes": peaks,
        **_needs(training, workloads[settings.strategy]),
        **_seconds(config, training, workloads[settings.strategy] if is_timed else None),
        "usable_bytes": USABLE_BYTES,
        "fits_16_gb_mac": peaks[settings.strategy] <= USABLE_BYTES,
        "advice": advice(peaks, [error.what for error in split_problems]),
    }


def _needs(training: Training, workload: Workload) -> dict[str, Any]:
    """Memory, messages and passes of a rank with the chosen strategy."""
    return {
        "bytes": workload.memory,
        "rank_peak_bytes": training.rank_peaks(workload.strategy),
        "message_bytes": _messages(training, workload),
        "row_tokens": training.row_tokens,
        "rows_per_step": training.settings.rows_per_step(1 if workload.is_split else training.ranks),
        "passes": [{"sequences": len(each.sequences), "width": each.width} for each in workload.passes],
    }


def _messages(training: Training, workload: Workload) -> dict[str, int]:
    """Bytes that a rank gives to all-reduces in a step: for the gradient, and for split blocks."""
    from thunder_train.worker import model

    sizes, ranks = training.sizes, training.ranks
    if ranks == 1:
        return {"gradient": 0, "blocks": 0}
    # A split block has two all-reduces forward, and two backward if it is trained.
    sums = 2 * (sizes.layers + training.settings.num_layers) * workload.is_split
    return {
        # Besides the gradient: loss, targets and a stop flag, and two numbers per rank (whether and when it is done).
        "gradient": 4 * (model.trainable_parameters(training.model) + 3 + 2 * ranks),
        "blocks": sums * workload.tokens * sizes.width * sizes.item_size,
    }


def _seconds(config: dict[str, Any], training: Training, workload: Workload | None) -> dict[str, Any]:
    """Seconds of a step and how they were measured; all None without a workload."""
    from thunder_train.worker.inspect import step_seconds

    if not workload:
        return {"seconds_per_step": None, "probe_tokens": None, "device": None}
    times = step_seconds.measure(config, training.settings, training.row_tokens)
    seconds = times.seconds(training.sizes, training.settings, workload.tokens, workload.parts)
    return {"seconds_per_step": round(seconds, 4), "probe_tokens": times.tokens, "device": times.device}


def advice(peaks: Mapping[str, int], split_problems: list[str]) -> str:
    """The strategy to use on Macs of 16 GB, in one sentence. peaks: bytes of a rank by possible strategy."""
    if peaks["data"] <= USABLE_BYTES:
        return "data: the whole model fits on each rank, and one message per step is the minimum"
    if peaks.get("tensor", USABLE_BYTES + 1) <= USABLE_BYTES:
        return "tensor: a rank's part of the model fits, the whole model does not"
    smaller = "lower micro_tokens or max_seq_len, set grad_checkpoint, or use a model of fewer bits"
    why = f" ({'; '.join(split_problems)})" if split_problems else ""
    return f"does not fit a 16 GB Mac with the {' or '.join(peaks)} strategy{why}: {smaller}"


def check(config: dict[str, Any], settings: Settings, ranks: int) -> "nn.Module":
    """The model, without weights. Raises every reason why it cannot get the adapter or be split over the ranks."""
    from thunder_train.worker import model, tensor_parallel

    network = model.build(config)
    split_problems = tensor_parallel.problems(network, ranks) if settings.strategy == "tensor" else []
    raise_all([*split_problems, *model.layer_problems(network, model.resolved(network, lora(settings)))])
    return network


def check_start(network: "nn.Module", settings: Settings) -> None:
    """Raise every reason why a training cannot begin with the adapter of --start-from. network: without an adapter."""
    from thunder_train.worker import model, start

    wanted = model.resolved(network, replace(lora(settings), scale=settings.scale))
    model.add_lora(network, wanted, settings.seed)
    raise_all(start.problems(network, start.read(settings.start_from), wanted, settings.model))


def lora(settings: Settings) -> "Lora":
    """The adapter, as far as it decides shapes."""
    from thunder_train.worker.model import Lora

    return Lora(settings.num_layers, settings.lora_rank, keys=settings.lora_keys, kind=settings.fine_tune_type)


def main(argv: list[str]) -> None:
    """Write the estimate for the training that the flags describe."""
    parser = Parser(
        prog="thunder_train.worker.inspect.fit", description="what a training needs; also takes the flags of launch.sh"
    )
    parser.add_argument("--config", type=Path, required=True, help="config.json of an mlx-lm model")
    parser.add_argument("--ranks", type=int, required=True, help="ranks that train together")
    parser.add_argument("--row-tokens", type=int, default=0, help="tokens of each row; 0: --max-seq-len")
    parser.add_argument("--memory-only", action="store_true", help="do not measure the time of a step")
    result = parser.add_mutually_exclusive_group(required=True)
    result.add_argument("--output", type=Path, help="JSON file to write")
    result.add_argument("--check", action="store_true", help="fail if the model cannot be trained like that")
    flags, rest = parser.parse_known_args(argv)
    hint = "run `./doit model`"
    settings, config = parse(rest), model_files.config(flags.config, hint)
    if flags.check:
        network = check(config, settings, flags.ranks)
        if settings.start_from:
            check_start(network, settings)
        return
    row_tokens = flags.row_tokens or settings.max_seq_len
    try:
        estimate = report(config, settings, flags.ranks, row_tokens, not flags.memory_only)
    except ThunderError as error:
        if not flags.memory_only:
            raise
        check(config, settings, flags.ranks)  # memory may stay unknown, an impossible training may not
        print(f"memory is not estimated: {error}", file=sys.stderr)
        estimate = {"schema": "thunder.fit/1", "rank_peak_bytes": []}
    files.write_json(flags.output, estimate)


if __name__ == "__main__":
    enter(main)
