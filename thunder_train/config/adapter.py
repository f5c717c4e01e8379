"""The keys of [adapter], which a recipe has in place of [train] for an adapter that was trained elsewhere."""

from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any

from thunder_train import ThunderError
from thunder_train.config.fields import text
from thunder_train.config.train import Train
from thunder_train.core import files, paths


def _of_train(name: str) -> Any:
    """A key that [train] has too."""
    key = next(each for each in fields(Train) if each.name == name)
    return field(default=key.default, metadata=key.metadata)


@dataclass(frozen=True, eq=False, kw_only=True)
class Adapter:
    """The [adapter] table of a recipe; without a path the recipe trains one."""

    path: str = text(
        help="Folder in the project that holds the adapter, as mlx-lm or PEFT wrote it; instead of [train]", default=""
    )
    max_seq_len: int = _of_train("max_seq_len")
    stall_timeout_s: int = _of_train("stall_timeout_s")
    start_timeout_s: int = _of_train("start_timeout_s")
    max_restarts: int = _of_train("max_restarts")


def training_of(adapter: dict[str, Any]) -> dict[str, Any]:
    """The [train] table that gives an evaluation what it shares with a training; nothing trains by it.

    adapter: the checked [adapter] table.
    """
    defaults = {key.name: key.default for key in fields(Train) if key.default is not MISSING}
    shared = {name: value for name, value in adapter.items() if name in defaults}
    return {**defaults, "num_iters": 1, "num_layers": 1, **shared}


def source_problems(table: dict[str, Any], where: str) -> list[ThunderError]:
    """A problem unless a recipe says where its adapter comes from, once. table: the recipe as it was written."""
    if "train" in table and "adapter" in table:
        what = "excludes [train]: a recipe trains an adapter or takes one"
        return [ThunderError(what, f"{where}: adapter", "take one of the two tables out")]
    if "adapter" not in table:
        hint = "add a table [train], or [adapter] with a path"
        return [] if "train" in table else [ThunderError("is missing", f"{where}: train", hint)]
    if isinstance(table["adapter"], dict) and not table["adapter"].get("path"):
        return [ThunderError("is missing", f"{where}: adapter.path", "give the folder of the adapter")]
    return []


def outside_problems(path: str, where: str, root: Path) -> list[ThunderError]:
    """A problem for the folder of an adapter that is not in the project, also by a link."""
    is_inside = files.is_inside(path) and path.isprintable()
    if is_inside and (root / path).resolve().is_relative_to(root.resolve()):
        return []
    return [ThunderError(f"{path!r} is no path inside the project", where, "copy the folder into adapters/")]


def problems(adapter: Adapter, run: str, file: str, root: Path) -> list[ThunderError]:
    """A problem for an adapter that is not in the project: hosts and whoever makes the run again look there.

    run: folder of the recipe's run; file: the recipe.
    """
    path, where = adapter.path, f"{file}: adapter.path"
    if outside := outside_problems(path, where, root):
        return outside
    if (root / path).resolve().is_relative_to((root / run).resolve()):
        return [ThunderError(f"{path!r} is in the folder of this run", where, "copy the folder into adapters/")]
    weights = [name for name in (paths.MLX_LM[0], paths.PEFT[0]) if (root / path / name).is_file()]
    if len(weights) != 1:
        what = f"has {'both' if weights else 'neither'} {paths.MLX_LM[0]} {'and' if weights else 'nor'} {paths.PEFT[0]}"
        return [ThunderError(what, path, f"give the folder that mlx-lm or PEFT wrote, in {where}")]
    if not (root / path / paths.MLX_LM[1]).is_file():
        return [ThunderError("is missing", f"{path}/{paths.MLX_LM[1]}", "copy it from where the adapter was trained")]
    return []
