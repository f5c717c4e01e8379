"""What a project is, once read: frozen dataclasses. Everything else takes these, never dicts of TOML.

load.py makes them; schema.py tells each key's type, bounds, unit, default and meaning. They compare by identity, so
that their sections can be remembered.
"""

from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any

from thunder_train.config.dataset import Dataset
from thunder_train.config.evaluate import Evaluate, Promotion
from thunder_train.config.train import Train

LOCAL = ("localhost", "127.0.0.1", "::1")
THIS_MACHINE = LOCAL[0]
SECRETS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "SWANLAB_API_KEY", "WANDB_API_KEY")
"""Variables of this process that remote ranks get too: in no file, no log and no command line."""


def is_local(host: str) -> bool:
    """Whether a host of a hostfile is this machine."""
    return host in LOCAL


def machine_name(host: str) -> str:
    """The machine that an ssh name means: "localhost" for this one, however it is spelled."""
    return THIS_MACHINE if is_local(host) else host


@dataclass(frozen=True, eq=False)
class Host:
    """One rank's machine. ssh: name for ssh; ips: addresses on the training link; rdma: one row of the jaccl matrix;
    weight: its speed, relative to the others'.
    """

    ssh: str
    ips: tuple[str, ...]
    rdma: tuple[str, ...]
    weight: float = 1.0

    @property
    def machine(self) -> str:
        """Name of the machine; several ranks may share one."""
        return machine_name(self.ssh)


@dataclass(frozen=True, eq=False)
class Cluster:
    """Where a training runs: `ranks` local processes, or one rank per host."""

    name: str
    backend: str
    hosts: tuple[Host, ...]
    envs: tuple[str, ...]
    folder: str
    """Project folder on remote hosts."""
    python: str
    """Interpreter on remote hosts, relative to their project folder."""

    @property
    def machines(self) -> tuple[str, ...]:
        """Names of the distinct machines, in rank order."""
        return tuple(dict.fromkeys(host.machine for host in self.hosts))

    @property
    def is_remote(self) -> bool:
        """Whether any rank runs on another machine."""
        return any(not is_local(host.ssh) for host in self.hosts)

    @property
    def weights(self) -> tuple[float, ...]:
        """The speed of each rank; empty where all are alike."""
        weights = tuple(host.weight for host in self.hosts)
        return weights if len(set(weights)) > 1 else ()


@dataclass(frozen=True, eq=False)
class Model:
    """A base model: `nano` is made here, `path` is an mlx-lm folder, `hub` a pinned Hugging Face repository."""

    name: str
    kind: str
    path: str
    repo: str
    revision: str
    layers: int
    width: int
    heads: int
    kv_heads: int
    hidden: int
    seed: int


@dataclass(frozen=True, eq=False)
class Build:
    """The [build] table."""

    environment: str
    tolerance: float
    """Relative difference of a metric up to which a run on another platform is equivalent."""


@dataclass(frozen=True, eq=False)
class Recipe:
    """One experiment, resolved: every name looked up, every default filled in."""

    name: str
    file: str
    """Where it was read from, relative to the project."""
    description: str
    cluster: Cluster
    model: Model
    dataset: Dataset
    train: Train
    evaluate: Evaluate
    promotion: Promotion
    build: Build

    @property
    def weights(self) -> tuple[float, ...]:
        """The speed of each rank in training; empty where all are alike, or where all compute each row together."""
        return self.cluster.weights if self.train.strategy == "data" else ()


@dataclass(frozen=True, eq=False)
class Project:
    """thunder.toml and every recipe."""

    default: tuple[str, ...]
    """Names of the recipes that a bare `doit` builds."""
    recipes: dict[str, Recipe]
    cache: Path
    """Folder of the run cache."""
    cache_limit_bytes: int
    clusters: dict[str, Cluster]
    models: dict[str, Model]
    datasets: dict[str, Dataset]

    @property
    def remote_clusters(self) -> dict[str, Cluster]:
        """Clusters on other machines, whether a recipe names them yet or not."""
        return {name: cluster for name, cluster in self.clusters.items() if cluster.is_remote}


@cache
def section(part: Any) -> dict[str, Any]:
    """A dataclass of this module as a plain JSON-like table (tuples become lists): made once, not to be changed."""
    return {field.name: _plain(getattr(part, field.name)) for field in fields(part)}


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return section(value)  # type: ignore[arg-type]  # hashable by identity
    return [_plain(inner) for inner in value] if isinstance(value, tuple) else value
