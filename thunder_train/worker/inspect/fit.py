"""Estimates what a training needs, from config.json and the flags of launch.sh: memory, message sizes, time of a step.

Reads no weights. The rows are those of the dataset if it is built (fit_rows.py). Activation memory is a formula with
measured factors (memory.py); seconds come from a short measurement on this machine (step_seconds.py). Writes one JSON
object, schema thunder.fit/1. With --check it only checks that the model can get the adapter, and that the ranks can
split it if they are to.
"""

import contextlib
import functools
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors

from thunder_train import ThunderError, raise_all
from thunder_train.core import files, model_files
from thunder_train.core.mac_memory import METAL_SHARE
from thunder_train.worker.args import Parser, Settings, parse
from thunder_train.worker.bootstrap import enter
from thunder_train.worker.inspect import fit_rows
from thunder_train.worker.inspect.fit_rows import Dataset, Work

# mlx, and our modules that import it, are imported inside the functions: BLAS must be loaded before mlx.
if TYPE_CHECKING:
    import mlx.nn as nn

    from thunder_train.worker.batching.plan import Pass
    from thunder_train.worker.inspect.memory import ModelSizes
    from thunder_train.worker.inspect.step_seconds import Times
    from thunder_train.worker.model import Lora

USABLE_BYTES = round(METAL_SHARE * 16e9)
"""Memory of a 16 GB Mac that a training can use."""
STORED = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
"""Types of numbers by their names in safetensors files."""


@dataclass(frozen=True)
class Workload:
    """Work of the ranks. strategy; parts: ranks that share each block; steps: of each some, the work of each rank that
    takes rows; memory: bytes by use of the rank with the largest forward pass, and their peak.
    """

    strategy: str
    parts: int
    steps: list[list[Work]]
    largest: Work
    memory: dict[str, int]
    rank_peaks: list[int]

    @property
    def is_split(self) -> bool:
        """Whether ranks share each block."""
        return self.parts > 1

    @property
    def tokens(self) -> float:
        """Tokens of a step, with padding, of the rank that computes most; the mean of the steps."""
        return sum(max(each.tokens for each in step) for step in self.steps) / len(self.steps)

    @property
    def targets(self) -> float:
        """Targets of that rank."""
        return sum(max(step, key=lambda each: each.tokens).targets for step in self.steps) / len(self.steps)


@dataclass(frozen=True)
class Training:
    """The training to estimate. model: base and adapter. row_tokens: tokens of each row without a dataset."""

    model: "nn.Module"
    sizes: "ModelSizes"
    settings: Settings
    ranks: int
    row_tokens: int
    dataset: Dataset | None = None

    def workload(self, strategy: str) -> Workload:
        """The work of the ranks. Raises ThunderError for a dataset of fewer rows than those of one step."""
        weights = self._weights(strategy)
        if self.dataset:
            steps = fit_rows.steps(self.model, self.settings, self.dataset, weights)
        else:
            steps = [fit_rows.assumed(self.model, self.settings, self.row_tokens, weights)]
        parts = self.ranks // len(weights)
        # Activations decide which pass needs most: the rest of a rank's memory is the same at each.
        worst = [max(works, key=lambda work: self._most(work, parts)) for works in zip(*steps, strict=True)]
        memories = [self._memory(each, parts) for each in worst]
        peaks = [memory["peak"] for memory in memories]
        top = peaks.index(max(peaks))
        return Workload(strategy, parts, steps, worst[top], memories[top], peaks * parts)

    def _most(self, work: Work, parts: int) -> int:
        return max((self._activations(each, parts) for each in work.passes), default=0)

    def _activations(self, layout: "Pass", parts: int) -> int:
        from thunder_train.worker.inspect import memory

        return memory.activations(self.sizes, layout, self.settings, parts, self._in_blocks)

    def _memory(self, work: Work, parts: int) -> dict[str, int]:
        from thunder_train.worker.inspect import memory

        return memory.memory(self.model, self.sizes, self._most(work, parts), self.settings, parts)

    @functools.cached_property
    def _in_blocks(self) -> bool:
        from thunder_train.worker import head

        return head.of(self.model) is not None

    def _weights(self, strategy: str) -> tuple[float, ...]:
        """Weights of those that share the rows: each rank with the data strategy, else all ranks as one."""
        sharing = self.ranks if strategy == "data" else 1
        return self.settings.weights if len(self.settings.weights) == sharing else (1.0,) * sharing


def report(
    config: dict[str, Any],
    settings: Settings,
    ranks: int,
    row_tokens: int,
    is_timed: bool = True,
    dataset: Dataset | None = None,
) -> dict[str, Any]:
    """The estimate as JSON. is_timed: also measure the time of a step, which takes seconds. Raises ThunderError for
    layers, keys and models that the training would refuse, too.
    """
    from thunder_train.worker import model, tensor_parallel
    from thunder_train.worker.inspect.memory import model_sizes

    network = model.build(config)
    split_problems = tensor_parallel.problems(network, ranks) if ranks > 1 else []
    if settings.strategy == "tensor":
        raise_all(split_problems)
    wanted = model.resolved(network, lora(settings))
    parameters = model.parameters(network)
    model.add_lora(network, wanted, settings.seed)
    settings = replace(settings, num_layers=wanted.num_layers)
    training = Training(network, model_sizes(config), settings, ranks, row_tokens, dataset)
    strategies = ["data", "tensor"] if ranks > 1 and not split_problems else ["data"]
    workloads = {name: training.workload(name) for name in strategies}
    workload, peaks = workloads[settings.strategy], {name: each.memory["peak"] for name, each in workloads.items()}
    kept = _kept(training, workload)
    return {
        "schema": "thunder.fit/1",
        "parameters": parameters,
        "trainable_parameters": model.trainable_parameters(network),
        "ranks": ranks,
        "strategy": settings.strategy,
        "peak_bytes": peaks,
        **_needs(training, workload),
        "kept": kept,
        **_seconds(config, training, workload if is_timed else None, kept),
        **_judged(peaks, settings.strategy, split_problems),
    }


def _judged(peaks: Mapping[str, int], strategy: str, split_problems: list[ThunderError]) -> dict[str, Any]:
    """Whether a Mac of 16 GB is enough."""
    return {
        "usable_bytes": USABLE_BYTES,
        "fits_16_gb_mac": peaks[strategy] <= USABLE_BYTES,
        "advice": advice(peaks, [error.what for error in split_problems]),
    }


def _needs(training: Training, workload: Workload) -> dict[str, Any]:
    """Memory, messages and passes of a rank with the chosen strategy."""
    dataset = training.dataset
    return {
        "bytes": workload.memory,
        "rank_peak_bytes": workload.rank_peaks,
        "message_bytes": _messages(training, workload),
        "row_tokens": dataset.row_tokens if dataset else training.row_tokens,
        "rows": len(dataset.train.examples) if dataset else None,
        "rows_per_step": training.settings.rows_per_step(1 if workload.is_split else training.ranks),
        "passes": [{"sequences": len(each.sequences), "width": each.width} for each in workload.largest.passes],
    }


def _kept(training: Training, workload: Workload) -> dict[str, Any] | None:
    """What is kept of the frozen blocks (worker/frozen_prefix.py): {"layers", "bytes" of all ranks, "in_memory"}, with
    {"why_not"} and 0 layers if nothing is; None without a dataset, whose rows decide it.
    """
    from thunder_train.worker import frozen_prefix

    if not training.dataset:
        return None
    settings, rows = training.settings, len(training.dataset.train.examples)
    sharing = 1 if workload.is_split else training.ranks
    epochs = settings.steps(rows, sharing) / -(-rows // settings.rows_per_step(sharing))
    if why_not := frozen_prefix.why_not_kept(settings.keep_prefix, training.model, epochs):
        return {"layers": 0, "bytes": 0, "in_memory": False, "why_not": why_not}
    layers = frozen_prefix.depth(training.model)
    size = frozen_prefix.token_numbers(training.model, layers) * training.sizes.item_size * training.dataset.tokens
    is_in_memory = size <= frozen_prefix.IN_MEMORY
    return {"layers": layers, "bytes": size * workload.parts, "in_memory": is_in_memory, "why_not": ""}


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
        "blocks": round(sums * workload.tokens * sizes.width * sizes.item_size),
    }


def _seconds(
    config: dict[str, Any], training: Training, workload: Workload | None, kept: dict[str, Any] | None
) -> dict[str, Any]:
    """Seconds of a step, and of one that finds the frozen blocks' output kept, and how they were measured; None without
    a workload, or with the reason why they were not.
    """
    from thunder_train.worker.inspect import step_seconds

    names = ("seconds_per_step", "seconds_per_later_step", "seconds_in_float32", "probe_tokens", "device")
    nothing = dict.fromkeys(names) | {"not_measured": "", "slow": ""}
    if not workload:
        return nothing
    longest = max(each.width for each in workload.largest.passes) + 1

    def measured(config: dict[str, Any], kept_layers: int) -> "tuple[Times, list[float]]":
        times, sizes = step_seconds.measure(config, training.settings, longest), training.sizes
        work = (workload.tokens, workload.targets, workload.parts)
        return times, [round(times.seconds(sizes, training.settings, *work, each), 4) for each in (0, kept_layers)]

    result = nothing
    layers = kept["layers"] if kept else 0
    try:
        times, (seconds, later) = measured(config, layers)
        result |= {"seconds_per_step": seconds, "seconds_per_later_step": later if layers else None}
        result |= {"probe_tokens": times.tokens, "device": times.device}
    except step_seconds.TooSlowError as error:
        result["not_measured"] = str(error)
    why = step_seconds.why_slow(config)
    if why and step_seconds.is_on_cpu():
        _, (plain, _) = measured(step_seconds.in_float32(config), 0)
        if result["seconds_per_step"] is None or result["seconds_per_step"] > step_seconds.MUCH_SLOWER * plain:
            result |= {"seconds_in_float32": plain, "slow": why}
    return result


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


def _dataset(settings: Settings) -> tuple[Dataset | None, str]:
    """(the rows, ""), or (None, why they are not read)."""
    try:
        return fit_rows.read(settings), ""
    except ThunderError as error:
        return None, str(error).split("\n", 1)[0]


def as_stored(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """A config.json as the weights beside it are, if they are there: with their type, and with the names of layers that
    are stored unpacked beside packed ones. mlx-lm looks at the weights for both.
    """
    kinds = dict[str, str]()
    for path in sorted(folder.glob("*.safetensors")):
        with contextlib.suppress(OSError, safetensors.SafetensorError), safetensors.safe_open(path, "numpy") as file:
            kinds |= {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118  (no dict)
    floating = {STORED[kind] for kind in kinds.values() if kind in STORED}
    packed = {name.removesuffix(".scales") for name in kinds if name.endswith(".scales")}
    plain = {name.removesuffix(".weight") for name in kinds if name.endswith(".weight")} - packed
    stored = config | ({"torch_dtype": floating.pop()} if len(floating) == 1 else {})
    given = config.get("quantization")
    return stored | {"quantization": dict.fromkeys(plain, False) | given} if given else stored


def main(argv: list[str]) -> None:
    """Write the estimate for the training that the flags describe."""
    parser = Parser(
        prog="thunder_train.worker.inspect.fit", description="what a training needs; also takes the flags of launch.sh"
    )
    parser.add_argument("--config", type=Path, required=True, help="config.json of an mlx-lm model")
    parser.add_argument("--ranks", type=int, required=True, help="ranks that train together")
    parser.add_argument("--row-tokens", type=int, default=0, help="tokens of each row; 0: those of the dataset")
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
    dataset, why = (None, "") if flags.row_tokens else _dataset(settings)
    row_tokens, is_timed = flags.row_tokens or settings.max_seq_len, not flags.memory_only
    config = as_stored(config, flags.config.parent)
    try:
        estimate = report(config, settings, flags.ranks, row_tokens, is_timed, dataset) | {"rows_unknown": why}
    except ThunderError as error:
        if not flags.memory_only:
            raise
        check(config, settings, flags.ranks)  # memory may stay unknown, an impossible training may not
        print(f"memory is not estimated: {error}", file=sys.stderr)
        estimate = {"schema": "thunder.fit/1", "rank_peak_bytes": []}
    files.write_json(flags.output, estimate)


if __name__ == "__main__":
    enter(main)
