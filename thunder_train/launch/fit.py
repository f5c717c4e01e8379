"""Memory and time that a recipe's training will need, computed from the model's config.json and the training flags.

worker/inspect/fit.py computes the numbers without reading a weight; this module starts it and formats its report.
"""

import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from thunder_train import ThunderError, models
from thunder_train.config.project import Model, Recipe
from thunder_train.core import files
from thunder_train.core.mac_memory import METAL_SHARE
from thunder_train.core.process import command
from thunder_train.launch import scripts

LAUNCHER_FLAGS = ("--hostfile", "--log-dir", "--folder", "--python", "--max-restarts")
"""Flags of launch.sh that a worker which does not train does not take."""
UNITS = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


def rank_peaks(recipe: Recipe, project: Path) -> list[int]:
    """Peak memory of each rank in bytes, estimated to within a quarter. Raises ThunderError as `measure` does."""
    peaks: list[int] = measure(recipe, project, "--memory-only")["rank_peak_bytes"]
    return peaks


def measure(recipe: Recipe, project: Path, *flags: str) -> dict[str, Any]:
    """The worker's report, schema thunder.fit/1. flags: added to the worker's. ThunderError without a config.json."""
    config = models.config_file(recipe.model, project)
    flags = (*worker_flags(recipe), *flags, "--config", str(config), "--ranks", str(len(recipe.cluster.hosts)))
    with tempfile.TemporaryDirectory(prefix="thunder-fit-") as folder:
        output = Path(folder) / "fit.json"
        argv = [sys.executable, "-m", "thunder_train.worker.inspect.fit", *flags, "--output", str(output)]
        command(argv, where=f"fit {recipe.name}", hint="read the lines above")
        report: dict[str, Any] = files.read_json(output)
    return report


def here(report: Mapping[str, Any]) -> dict[str, Any]:
    """Whether all ranks fit this machine together: {"ranks", "bytes" of all, "usable_bytes", "fits"}."""
    share = METAL_SHARE if sys.platform == "darwin" else 1.0
    usable = round(share * os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    kept = report["kept"] or {"bytes": 0, "in_memory": False}
    needed = sum(report["rank_peak_bytes"]) + kept["bytes"] * kept["in_memory"]
    return {"ranks": report["ranks"], "bytes": needed, "usable_bytes": usable, "fits": needed <= usable}


def worker_flags(recipe: Recipe) -> list[str]:
    """The flags and values that launch.sh passes to each worker, for a worker that does not train."""
    flags = [flag for flag in scripts.launch_flags(recipe) if flag[0] not in LAUNCHER_FLAGS]
    return [str(part) for flag in flags for part in flag]


def has_config(model: Model, project: Path) -> bool:
    """Whether the model's config.json is on this machine: built or downloaded."""
    try:
        return models.config_file(model, project).is_file()
    except ThunderError:
        return False


def table(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The report as rows of a label and a value."""
    memory, message = report["bytes"], report["message_bytes"]
    largest = max(report["passes"], key=lambda batch: int(batch["sequences"] * batch["width"]))
    ranks = f"{report['ranks']} ranks, {report['strategy']}" if report["ranks"] > 1 else "1 rank"
    rows = [
        ("parameters", f"{report['parameters']:,}"),
        ("trained", f"{report['trainable_parameters']:,}"),
        ("weights", size(memory["weights"])),
        ("adapter, optimizer", size(memory["adapter"] + memory["optimizer"])),
        ("gradients", size(memory["gradients"])),
        (
            "activations",
            f"{size(memory['activations'])} in passes of {largest['sequences']} x {largest['width']} tokens",
        ),
        ("peak of a rank", f"{size(memory['peak'])} ({ranks})"),
        ("gradient message", f"{size(message['gradient'])} a step"),
        ("block messages", f"{size(message['blocks'])} a step"),
        ("a step", f"{_seconds(report)} for {report['rows_per_step']} rows of {_row_tokens(report)}"),
        *([("slow", _slow(report))] if report["slow"] else []),
        *([("frozen layers", _kept(report["kept"], report["ranks"]))] if report["kept"] else []),
        *([("this machine", _judged(report["here"]))] if "here" in report else []),
        ("16 GB Mac", _verdict(report)),
        ("advice", report["advice"]),
    ]
    # Only a model split between ranks sends messages inside a step.
    return [row for row in rows if row[0] != "block messages" or message["blocks"]]


def size(count: float) -> str:
    """A number of bytes with a unit, as 1.5 GB."""
    factor, unit = next(((factor, unit) for factor, unit in UNITS if count >= factor), (1, "bytes"))
    return f"{count / factor:.3g} {unit}"


def _seconds(report: Mapping[str, Any]) -> str:
    if report["seconds_per_step"] is None:
        return f"not measured: {report['not_measured']};"
    later = report["seconds_per_later_step"]
    seconds = f"{report['seconds_per_step']:.2g} s" + (f", {later:.2g} s after the first epoch," if later else "")
    return f"about {seconds} on this machine's {report['device']}, messages not counted,"


def _row_tokens(report: Mapping[str, Any]) -> str:
    if report["rows"]:
        return f"{report['row_tokens']} tokens, the mean of its {report['rows']:,} rows"
    unknown = f": the rows are not known, {report['rows_unknown']}" if report["rows_unknown"] else ""
    return f"{report['row_tokens']} tokens{unknown}"


def _slow(report: Mapping[str, Any]) -> str:
    plain = f"{report['slow']}: about {report['seconds_in_float32']:.2g} s a step with float32 weights"
    return f"{plain}; for runs on a CPU make such with `.venv/bin/mlx_lm.convert --dequantize --dtype float32`"


def _kept(kept: Mapping[str, Any], ranks: int) -> str:
    if kept["why_not"]:
        return f"their output is not kept: {kept['why_not']}"
    place = "in memory" if kept["in_memory"] else "in a file below .thunder"
    place += f", of all {ranks} ranks" if ranks > 1 else ""
    return f"the output of the first {kept['layers']} is kept: {size(kept['bytes'])} {place}"


def _judged(here: Mapping[str, Any]) -> str:
    verdict = "fits" if here["fits"] else "does not fit"
    ranks = f"{here['ranks']} ranks need" if here["ranks"] > 1 else "the rank needs"
    return f"{verdict}; {ranks} {size(here['bytes'])} of {size(here['usable_bytes'])}"


def _verdict(report: Mapping[str, Any]) -> str:
    usable = f"{size(report['usable_bytes'])} of it, Metal's recommended working set, can be used"
    return f"fits; {usable}" if report["fits_16_gb_mac"] else f"does not fit a 16 GB Mac; {usable}"
