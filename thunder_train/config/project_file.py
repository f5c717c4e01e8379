"""The keys of thunder.toml, of which load.py makes a Project: type, bounds, unit, default and help of each."""
# ruff: noqa: RUF009  (a call per key is how keys are declared)

from dataclasses import dataclass
from typing import Any

from thunder_train.config.dataset import Dataset
from thunder_train.config.evaluate import Evaluate
from thunder_train.config.fields import named, nested, real, text, texts, whole
from thunder_train.config.profiles import Profile
from thunder_train.config.project import Build, Cluster, Model
from thunder_train.config.report import Report
from thunder_train.config.train import Train


@dataclass(init=False, repr=False, eq=False)
class ProjectKeys:
    """Declares the [project] table of thunder.toml; never instantiated, so it costs no start of doit an __init__."""

    recipes: tuple[str, ...] = texts(help="Recipes that `./doit` builds when no task is named")
    cache: str = text(help="Folder of the run cache; clones on one disk may share it", default=".thunder/cache")
    cache_limit_gb: float = real(
        help="Size of the run cache; the least recently used runs are removed first",
        unit="GB",
        low=0.0,
        high=1e6,
        default=10.0,
    )
    store: str = text(
        help="Where `doit push` sends outputs and `doit pull` finds them: a folder, ssh://host/folder, s3://bucket/folder",
        default="",
    )
    trainings_at_once: int = whole(
        help="With `doit -n`: recipes that may train, evaluate or check at once on one machine",
        unit="recipes",
        low=1,
        high=64,
        default=1,
    )


@dataclass(init=False, repr=False, eq=False)
class Defaults:
    """Declares the [defaults] table of thunder.toml; never instantiated."""

    train: dict[str, Any] = nested(Train, help="Defaults of [train]", default=dict, partial=True)
    evaluate: dict[str, Any] = nested(Evaluate, help="Defaults of [evaluate]", default=dict, partial=True)
    report: dict[str, Any] = nested(Report, help="Defaults of [report]", default=dict, partial=True)
    build: dict[str, Any] = nested(Build, help="Defaults of [build]", default=dict, partial=True)


@dataclass(init=False, repr=False, eq=False)
class ProjectFile:
    """Declares the tables of thunder.toml, of which load.py makes a Project; never instantiated."""

    project: ProjectKeys = nested(ProjectKeys, help="The project")
    clusters: dict[str, Cluster] = named(Cluster, help="Where recipes train, by name", needed=False)
    models: dict[str, Model] = named(Model, help="Base models, by name")
    datasets: dict[str, Dataset] = named(Dataset, help="Datasets, by name", forbidden=["sources"])
    profiles: dict[str, dict[str, Any]] = named(
        Profile, help="Error rates beside those of docs/evaluation.md, by name", needed=False
    )
    defaults: Defaults = nested(Defaults, help="Values of recipe keys that a recipe does not give", default=Defaults)
