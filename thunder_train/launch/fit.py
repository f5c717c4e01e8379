"""What a recipe's training will need, before it runs: from its config.json and flags; no weight is read.

The worker reckons (worker/fit.py); here its model's config is found, and its numbers become a table.
"""

import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from thunder_train import ThunderError, models
from thunder_train.config.project import Model, Recipe
from thunder_train.core import files
from thunder_train.core.process import command
from thunder_train.launch import scripts

LAUNCHER_FLAGS = ("--hostfile", "--log-dir", "--folder", "--python", "--max-restarts")
"""Flags of launch.sh that no worker takes, or that one which only looks has no use for."""
UNITS = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


def rank_peaks(recipe: Recipe, project: Path) -> list[int]:
    """Bytes that each rank has at its peak, within a quarter of it. Raises ThunderError as measure."""
    found: list[int] = measure(recipe, project, "--memory-only")["rank_peak_bytes"]
    return found


def measure(recipe: Recipe, project: Path, *flags: str) -> dict[str, Any]:
    """The worker's report, schema thunder.fit/1. Raises ThunderError when there is no config.json.

    flags: more of them for the worker.
    """
    words = [*worker_words(recipe), *flags]
    words += ["--config", str(models.config_file(recipe.model, project)), "--ranks", str(len(recipe.cluster.hosts))]
    with tempfile.TemporaryDirectory(prefix="thunder-fit-") as folder:
        output = Path(folder) / "fit.json"
        argv = [sys.executable, "-m", "thunder_train.worker.inspect.fit", *words, "--output", str(output)]
        command(argv, where=f"fit {recipe.name}", hint="read the lines above")
        found: dict[str, Any] = files.read_json(output)
    return found


def worker_words(recipe: Recipe) -> list[str]:
    """The words that launch.sh hands to each worker, for a worker that only looks."""
    flags = [flag for flag in scripts.launch_flags(recipe) if flag[0] not in LAUNCHER_FLAGS]
    return [str(part) for flag in flags for part in flag]


def has_config(model: Model, project: Path) -> bool:
    """Whether the model's config.json is here; before it is made or fetched it is not."""
    try:
        return models.config_file(model, project).is_file()
    except ThunderError:
        return False


def table(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The report as rows of two columns."""
    need, message = found["bytes"], found["message_bytes"]
    longest = max(found["passes"], key=lambda each: int(each["sequences"] * each["width"]))
    ranks = f"{found['ranks']} ranks, {found['strategy']}" if found["ranks"] > 1 else "1 rank"
    rows = [
        ("parameters", f"{found['parameters']:,}"),
        ("trained", f"{found['trainable_parameters']:,}"),
        ("weights", size(need["weights"])),
        ("adapter, AdamW", size(need["adapter"] + need["optimizer"])),
        ("gradients", size(need["gradients"])),
        ("activations", f"{size(need['activations'])} in passes of {longest['sequences']} x {longest['width']} tokens"),
        ("peak of a rank", f"{size(need['peak'])} ({ranks})"),
        ("gradient message", f"{size(message['gradient'])} a step"),
        ("block messages", f"{size(message['blocks'])} a step"),
        ("a step", f"{_seconds(found)} for {found['rows_per_step']} rows of {found['row_tokens']} tokens"),
        ("16 GB Mac", _verdict(found)),
        ("advice", found["advice"]),
    ]
    return [row for row in rows if row[0] != "block messages" or message["blocks"]]


def size(count: float) -> str:
    """Bytes for people."""
    factor, unit = next(((factor, unit) for factor, unit in UNITS if count >= factor), (1, "bytes"))
    return f"{count / factor:.3g} {unit}"


def _seconds(found: Mapping[str, Any]) -> str:
    return f"about {found['seconds_per_step']:.2g} s on this machine's {found['device']}, messages not counted,"


def _verdict(found: Mapping[str, Any]) -> str:
    usable = f"{size(found['usable_bytes'])} of it, 75 %, can be used"
    return f"fits; {usable}" if found["fits_16_gb_mac"] else f"does not fit a 16 GB Mac; {usable}"
