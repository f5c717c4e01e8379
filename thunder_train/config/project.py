"""The project as frozen dataclasses, and the keys of thunder.toml and recipes that they are read from.

Each key's type, bounds, unit, default and help are stated only here and in train.py, dataset.py and evaluate.py.
load.py reads the files. Instances compare by identity, so that `section` can cache by them.
"""
# ruff: noqa: RUF009  (a call per key is how keys are declared)

from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any

from thunder_train.config.adapter import Adapter
from thunder_train.config.dataset import Dataset
from thunder_train.config.evaluate import Evaluate
from thunder_train.config.fields import (
    ADDRESS,
    REPO,
    REVISION,
    RUN,
    SEED_MAX,
    SSH_NAME,
    VARIABLE,
    is_implied,
    is_operational,
    lists,
    nested,
    real,
    scalars,
    switch,
    tables,
    text,
    texts,
    whole,
)
from thunder_train.config.promotion import Promotion
from thunder_train.config.report import Report
from thunder_train.config.train import Train
from thunder_train.core import paths

LOCAL = ("localhost", "127.0.0.1", "::1")
THIS_MACHINE = LOCAL[0]
SINGLE = "single"
"""The cluster of a recipe that names none: one process on this machine. A project may give it a table of its own."""
CHAT = ("chat_template", "template", "end_answers")
"""Keys of a model that change none of its files: they decide how messages become text."""
SECRETS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "SWANLAB_API_KEY", "WANDB_API_KEY")
"""Variables of this process that remote ranks get too: in no file, no log and no command line."""


NEUTRAL_VARIABLES = (
    "NCCL_DEBUG",
    "NCCL_IB_",
    "NCCL_SOCKET_",
    "OMPI_MCA_",
    "MLX_METAL_FAST_SYNCH=",
    "WANDB_",
    "SWANLAB_",
)
"""Beginnings of variables of ranks that choose a link or what is reported: they change no number. All others may:
with OPENBLAS_NUM_THREADS=2 the last bits of a loss differ."""


def is_local(host: str) -> bool:
    """Whether a host of a hostfile is this machine."""
    return host in LOCAL


def machine_name(host: str) -> str:
    """The machine that an ssh name means: "localhost" for this one, however it is spelled."""
    return THIS_MACHINE if is_local(host) else host


@dataclass(frozen=True, eq=False)
class Host:
    """The machine of one rank."""

    ssh: str = text(help="Name that ssh reaches without a prompt", pattern=SSH_NAME, operational=True)
    ips: tuple[str, ...] = texts(
        help="Addresses on the training link, the preferred one first (ring, nccl, mpi; jaccl needs that of rank 0)",
        pattern=ADDRESS,
        default=(),
        operational=True,
    )
    rdma: tuple[str, ...] = texts(
        help='jaccl: the row of this host in the RDMA matrix; "" stands for the host itself, "rdma_en2,rdma_en3" for '
        "two cables to another",
        default=(),
        operational=True,
    )
    weight: float = real(
        help="Speed relative to the other hosts: the rank's share of a step's rows (strategy data)",
        low=0.01,
        high=100.0,
        default=1.0,
    )

    @property
    def machine(self) -> str:
        """Name of the machine; several ranks may share one."""
        return machine_name(self.ssh)


@dataclass(frozen=True, eq=False)
class Cluster:
    """Where a recipe trains: `ranks` processes on this machine, or one rank per host."""

    name: str
    backend: str = text(
        help="How MLX moves tensors between ranks",
        choices=("ring", "jaccl", "jaccl-ring", "mpi", "nccl"),
        default="ring",
    )
    hosts: tuple[Host, ...] = tables(
        Host,
        help="One table per rank, rank 0 first; instead of ranks",
        minlength=1,
        default=(),
        optional=True,
        instead=(
            "ranks",
            whole(help="Processes on this machine; instead of hosts", unit="ranks", low=1, high=64, optional=True),
        ),
    )
    envs: tuple[str, ...] = texts(
        help="Environment variables of every rank, as NAME=value", pattern=VARIABLE, default=()
    )
    folder: str = text(
        help="Project folder on remote hosts, from the home folder", default="thunder-train", operational=True
    )
    python: str = text(
        help="Python interpreter on remote hosts, from the project folder",
        default=".venv/bin/python",
        operational=True,
    )

    @property
    def machines(self) -> tuple[str, ...]:
        """Names of the distinct machines, in rank order."""
        return tuple(dict.fromkeys(host.machine for host in self.hosts))

    @property
    def is_remote(self) -> bool:
        """Whether any rank runs on another machine."""
        return any(not is_local(host.ssh) for host in self.hosts)

    @property
    def is_python_ours(self) -> bool:
        """Whether sync makes the environment of the hosts' interpreter; any other one is its user's to maintain."""
        return self.python.startswith(".venv/")

    @property
    def numeric_envs(self) -> tuple[str, ...]:
        """The variables of the ranks that may change a number, which we cannot know to be impossible."""
        return tuple(pair for pair in self.envs if not pair.startswith(NEUTRAL_VARIABLES))

    @property
    def weights(self) -> tuple[float, ...]:
        """The speed of each rank; empty if all are equal."""
        weights = tuple(host.weight for host in self.hosts)
        return weights if len(set(weights)) > 1 else ()


ALONE = Cluster(name=SINGLE, hosts=(Host(ssh=LOCAL[1], ips=(LOCAL[1],)),))
"""One process on this machine."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Model:
    """A base model. nano: made by Thunder Train; path: an mlx-lm folder; hub: a pinned Hugging Face repository."""

    name: str
    kind: str = text(help="Where the base model comes from", choices=("nano", "path", "hub"))
    path: str = text(help="path: an mlx-lm folder (safetensors, config.json, tokenizer)", default="")
    repo: str = text(help="hub: owner/name", pattern=REPO, default="")
    revision: str = text(
        help="hub: branch, tag or commit; model.lock.json pins its commit", pattern=REVISION, default="main"
    )
    layers: int = whole(help="nano: transformer layers", unit="layers", low=1, high=64, default=6)
    width: int = whole(help="nano: hidden size", unit="values", low=8, high=1024, default=64)
    heads: int = whole(help="nano: query heads", unit="heads", low=1, high=64, default=4)
    kv_heads: int = whole(help="nano: key/value heads", unit="heads", low=1, high=64, default=1)
    hidden: int = whole(help="nano: width of the MLP", unit="values", low=8, high=4096, default=128)
    seed: int = whole(help="nano: seed of the random weights", low=0, high=SEED_MAX, default=0)
    chat_template: str = text(
        help="Jinja file of the project that turns messages into text, instead of the tokenizer's own chat template; "
        "templates/chat/ has some for base models without one",
        default="",
    )
    template: dict[str, Any] = scalars(
        help="Arguments of the chat template, as enable_thinking = false: text, number, true or false"
    )
    end_answers: bool = switch(
        help="Append the end-of-sequence token to an answer that the chat template does not end", default=True
    )

    @property
    def chat(self) -> dict[str, Any]:
        """Those of CHAT that are not the default, without chat_template, which is a file."""
        given = {"template": self.template, "end_answers": self.end_answers}
        return {name: value for name, value in given.items() if value not in ({}, True)}


@dataclass(frozen=True, eq=False, kw_only=True)
class Build:
    """The [build] table of a recipe."""

    environment: str = text(
        help="Environment changes that retrain. strict: mlx, mlx-lm, Python, platform or BLAS; mlx: mlx or mlx-lm; "
        "none: no change",
        choices=("strict", "mlx", "none"),
        default="mlx",
        operational=True,
    )
    tolerance: float = real(
        help="Largest difference of a metric that still counts as reproduced on another platform",
        unit="relative",
        low=0.0,
        high=1.0,
        default=1e-3,
        operational=True,
    )


@dataclass(frozen=True, eq=False, kw_only=True)
class Recipe:
    """One experiment, resolved: every name looked up, every default filled in."""

    name: str = text(
        help="Name of the run; by default the file name without .toml",
        pattern=RUN,
        forbidden=["models"],
        optional=True,
    )
    file: str
    """Path of the recipe, relative to the project."""
    description: str = text(help="What the run is for", default="", operational=True)
    cluster: Cluster = text(
        help=f"Name of a [clusters.*] table of thunder.toml; {SINGLE} is one process on this machine", default=SINGLE
    )
    model: Model = text(help="Name of a [models.*] table of thunder.toml")
    dataset: Dataset = text(help="Name of a [datasets.*] table of thunder.toml")
    train: Train = nested(Train, help="The training", optional=True)
    adapter: Adapter = nested(
        Adapter, help="An adapter that was trained elsewhere, instead of [train]", default=Adapter
    )
    evaluate: Evaluate = nested(Evaluate, help="The evaluation", default=Evaluate)
    promotion: Promotion = nested(Promotion, help="What an adapter must show to be promoted", default=Promotion)
    report: Report = nested(Report, help="What the run's page says of its project", default=Report)
    build: Build = nested(Build, help="What makes a result stale", default=Build)

    @property
    def weights(self) -> tuple[float, ...]:
        """The speed of each rank in training; empty if all are equal, or if they compute each row together."""
        return self.cluster.weights if self.train.strategy == "data" else ()

    @property
    def is_imported(self) -> bool:
        """Whether its adapter was trained elsewhere: `train` then holds only what an evaluation needs."""
        return bool(self.adapter.path)

    @property
    def scripts(self) -> tuple[str, ...]:
        """The scripts of its run."""
        return paths.SCRIPTS if not self.is_imported else tuple(each for each in paths.SCRIPTS if each != "launch.sh")

    @property
    def unused(self) -> str:
        """Of the tables `train` and `adapter` the one that this recipe does not have."""
        return "train" if self.is_imported else "adapter"


@dataclass(init=False, repr=False, eq=False, frozen=True, kw_only=True)
class RecipeFile(Recipe):
    """Declares the keys that a recipe's file may have besides, of which experiments.py makes recipes; never
    instantiated.
    """

    extends: str = text(help="Name of a recipe of which all keys hold that this one does not give", optional=True)
    sweep: dict[str, Any] = lists(
        help='One recipe for each combination of these values: "train.learning_rate" = [1e-3, 3e-3] makes '
        "NAME@0.001 and NAME@0.003",
    )


@dataclass(frozen=True, eq=False)
class Project:
    """thunder.toml and every recipe."""

    default: tuple[str, ...]
    """Names of the recipes that a bare `doit` builds."""
    recipes: dict[str, Recipe]
    sweeps: dict[str, tuple[str, ...]]
    """{name of a recipe with a sweep: the recipes that it makes}"""
    cache: Path
    """Folder of the run cache."""
    cache_limit_bytes: int
    store: str
    """Address of the store of outputs; "" without one."""
    trainings_at_once: int
    """Recipes that may have ranks on one machine at once."""
    clusters: dict[str, Cluster]
    models: dict[str, Model]
    datasets: dict[str, Dataset]

    @property
    def remote_clusters(self) -> dict[str, Cluster]:
        """Clusters on other machines, whether a recipe names them yet or not."""
        return {name: cluster for name, cluster in self.clusters.items() if cluster.is_remote}


@cache
def section(part: Any) -> dict[str, Any]:
    """A config dataclass as a plain JSON-like table, tuples as lists. It is cached, so it must not be changed."""
    return {key.name: _plain(getattr(part, key.name), section) for key in fields(part)}


@cache
def deciding(part: Any) -> dict[str, Any]:
    """`section` without the operational keys, in its tables too: what can change an output. Not to be changed.

    Without keys that later versions added, where they have their defaults: those runs are the same as before.
    """
    values = ((key, getattr(part, key.name)) for key in _deciding_keys(part.__class__))
    return {key.name: _plain(value, deciding) for key, value in values if not is_implied(key, value)}


@cache
def _deciding_keys(kind: Any) -> tuple[Any, ...]:
    return tuple(key for key in fields(kind) if not is_operational(key))


@cache
def operational(part: Any) -> dict[str, Any]:
    """The rest of `section`: how the part runs. Tables without such a key are left out. Not to be changed."""
    table = {}
    for key in fields(part):
        value = getattr(part, key.name)
        if is_operational(key):
            table[key.name] = _plain(value, section)
        elif is_dataclass(value) and (inner := _plain(value, operational)):
            table[key.name] = inner
    return table


def _plain(value: Any, of: Callable[[Any], dict[str, Any]]) -> Any:
    if isinstance(value, str | int | float):  # most are, and the next question is slow
        return value
    if is_dataclass(value):
        return of(value)
    return [_plain(inner, of) for inner in value] if isinstance(value, tuple) else value
