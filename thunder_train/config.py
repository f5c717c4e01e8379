"""TOML -> validated, resolved, frozen Project and Recipe.

Reads thunder.toml and recipes/*.toml. Every key, bound and default is in schema.py; this file only joins and checks.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Host:
    """One rank's machine. ssh: name for ssh; ips: addresses on the training link; rdma: one row of the jaccl matrix."""

    ssh: str
    ips: tuple[str, ...]
    rdma: tuple[str, ...]


@dataclass(frozen=True)
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


@dataclass(frozen=True)
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


@dataclass(frozen=True)
class Source:
    """One input of a dataset. kind: `report` (field map), `rows` (row contract) or `chatml`."""

    kind: str
    path: str
    references: str
    """Row contract only: the references file; `path` is the predictions file."""
    evidence_kind: str
    rows: str
    """Report only: dotted path to the list of rows, "" when the file itself is the list."""
    fields: dict[str, str]
    """Report only: canonical field -> dotted path inside a row."""
    constants: dict[str, str]
    """Report only: canonical field -> constant."""
    use: tuple[str, ...]
    """Report only: which rows teach: accepted, corrected, unchanged."""


@dataclass(frozen=True)
class Dataset:
    """Sources, prompt and split of a dataset."""

    name: str
    sources: tuple[Source, ...]
    system: str
    template: str
    orthography: str
    split_seed: int
    valid: float
    """Share of source groups that go to validation."""
    test: float
    """Share of source groups that go to the test rows."""
