"""What a host may answer to each question: a schema per question, with bounds.

A host is another machine, and what it sends is not trusted: every answer passes through `checked` before any code uses
it. Texts that only people read are made safe to print; names, addresses and versions must look like what they are.
"""

import ipaddress
import json
from pathlib import Path as FilePath
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta, Struct

from thunder_train.core.text import printable

LINE_BYTES = 4 << 20
"""Longest answer: some 20,000 files with their hashes."""
SHOWN = 300
"""Characters of an error's reason that are shown."""
EXACT = ("environment",)
"""Keys whose texts are passed on and never shown, so they stay as they are."""

Schema = TypeVar("Schema", bound=Struct)
Count = Annotated[int, Meta(ge=0, le=1 << 60)]
Sha256 = Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")]
Path = Annotated[str, Meta(min_length=1, max_length=1024)]
Text = Annotated[str, Meta(max_length=4000)]
Version = Annotated[str, Meta(pattern=r"\A[0-9A-Za-z][0-9A-Za-z.+_-]{0,63}\Z")]
Device = Annotated[str, Meta(pattern=r"\A[0-9A-Za-z_][0-9A-Za-z.:@_-]{0,63}\Z")]
"""Name of a network interface or an RDMA device."""
Ip = Annotated[str, Meta(pattern=r"\A[0-9A-Fa-f.:]{2,45}(%[0-9A-Za-z._-]{1,32})?\Z")]
IpWithPrefix = Annotated[str, Meta(pattern=r"\A[0-9.]{7,15}/[0-9]{1,2}\Z")]
Paths = Annotated[list[Path], Meta(max_length=20_000)]
Hashes = Annotated[dict[Path, tuple[Count, Sha256 | None]], Meta(max_length=20_000)]


class Answer(Struct, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """An answer has the fields that its class names and no other."""


class Interface(Answer):
    """A network interface that is up, with its IPv4 addresses, as 10.0.5.1/24."""

    name: Device
    kind: Annotated[str, Meta(max_length=100)]
    addresses: Annotated[list[IpWithPrefix], Meta(max_length=64)]

    def __post_init__(self) -> None:
        for address in self.addresses:
            ipaddress.IPv4Interface(address)


class Worker(Answer):
    """A process of an earlier run."""

    pid: Annotated[int, Meta(ge=1, le=1 << 31)]
    command: Text


class Mac(Answer):
    """What a Mac says of itself; see agent/mac.py."""

    macos: Version
    chip: Annotated[str, Meta(max_length=100)]
    sleep_minutes: Count | None
    is_on_battery: bool
    is_lid_closed: bool
    bridges: Annotated[dict[Device, Annotated[list[Device], Meta(max_length=64)]], Meta(max_length=64)]
    thunderbolt_gbit: Count | None
    rdma_ports: Annotated[dict[Device, Annotated[str, Meta(max_length=40)]], Meta(max_length=256)]
    working_set_bytes: Count | None


class Facts(Answer):
    """The state of a host."""

    has_folder: bool
    has_project: bool
    has_python: bool
    python: Version
    mlx: Version | None
    mlx_lm: Version | None
    thunder_train: Version | None
    platform: Version
    fast_synch: Text | None
    interfaces: Annotated[list[Interface], Meta(max_length=256)]
    ssh_address: Annotated[list[Ip], Meta(max_length=1)]
    rdma: Annotated[list[Device], Meta(max_length=256)] | None
    mac: Mac | None
    usable_memory_bytes: Count
    free_disk_bytes: Count
    files: Hashes
    workers: Annotated[list[Worker], Meta(max_length=1000)]
    time_s: Annotated[float, Meta(ge=0, le=1e11)]


class Hashed(Answer):
    """Sizes and hashes of files."""

    files: Hashes


class Looked(Answer):
    """How a host's files differ from the wanted ones. arrived: bytes of each content that an earlier sync sent."""

    missing: Paths
    elsewhere: Paths
    removed: Paths
    environment: Sha256 | None
    python: Version | None
    free_bytes: Count
    arrived: Annotated[dict[Sha256, Count], Meta(max_length=20_000)]


class Placed(Looked):
    """The same after arrived files were put in place."""

    replaced: Paths
    damaged: Paths


class Announced(Answer):
    """Bytes that follow the answer."""

    bytes: Count


class Done(Answer):
    """Nothing to tell."""


class _Attempt(Answer):
    """Figures, or why there are none."""

    error: Annotated[str, Meta(min_length=1, max_length=4000)] | None = None

    def __post_init__(self) -> None:
        figures = [getattr(self, name) for name in self.__struct_fields__ if name != "error"]
        if any((figure is None) == (self.error is None) for figure in figures):
            raise ValueError("must hold either an error or every figure")


class Listening(_Attempt):
    """Where a host listens."""

    port: Annotated[int, Meta(ge=1, le=65535)] | None = None


class Measured(_Attempt):
    """A measured link. source: the address that the connection came from."""

    source: Ip | None = None
    latency_ms: Annotated[float, Meta(ge=0, le=1e6)] | None = None
    bytes_per_second: Count | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.source is not None:
            ipaddress.ip_address(self.source)


class Installed(Answer):
    """What a machine has of Open MPI. interfaces: the interface of each address."""

    mpirun: Path | None
    orted: Path | None
    libmpi: Path | None
    version: Annotated[str, Meta(pattern=r"\A([0-9]{1,3}\.[0-9]{1,3})?\Z")]
    interfaces: Annotated[dict[Ip, Device], Meta(max_length=256)]


class Report(Answer):
    """A message of a process that Open MPI started: a rank's environment, or a command for ssh to run on a node.

    Only Open MPI's own variables: any other, as LD_PRELOAD, could load a program into the rank, and so could its own
    mca_base_component_path.
    """

    rank: Annotated[int, Meta(ge=0, le=4095)] | None = None
    environment: (
        dict[
            Annotated[str, Meta(pattern=r"\A(?!.*component_path)(OMPI|PMIX|PRTE)_[A-Za-z0-9_]{1,200}\Z")],
            Annotated[str, Meta(pattern=r"\A[^\x00-\x08\x0a-\x1f\x7f]{0,65536}\Z")],
        ]
        | None
    ) = None
    node: Annotated[str, Meta(pattern=r"\A[0-9A-Za-z][0-9A-Za-z.:_-]{0,254}\Z")] | None = None
    command: Annotated[str, Meta(max_length=65536)] | None = None

    def __post_init__(self) -> None:
        pairs = [(self.rank, self.environment), (self.node, self.command)]
        if [pair for pair in pairs if None in pair] != [(None, None)]:
            raise ValueError("must hold either rank and environment, or node and command")


class News(Answer):
    """Messages since the last question."""

    messages: Annotated[list[Report], Meta(max_length=1000)]
    has_ended: bool
    output: Text


class Failed(Answer):
    """A system call that failed there."""

    failed: Text


SCHEMAS: dict[str, type[Answer]] = {
    "facts": Facts,
    "hash": Hashed,
    "installed": Installed,
    "listen": Listening,
    "look": Looked,
    "measure": Measured,
    "news": News,
    "place": Placed,
    "receive": Done,
    "remove": Done,
    "send": Announced,
    "start": Done,
}
"""Question -> what its answer must be."""
FAILED = b'{"failed":'
DONE_BYTES = 1 << 28
"""Largest done.json: it holds a loss per step."""


class Content(Struct):
    """Size and hash of a file."""

    bytes: Count
    sha256: Sha256


class TrainingDone(Struct):
    """What is read of a done.json that a host wrote."""

    adapter: Content
    rows: dict[str, Count] = {}
    dropped: dict[str, Count] = {}
    split: dict[str, Count] = {}


class RankResult(Struct, omit_defaults=True):
    """What a rank prints after the all-reduce test."""

    rank: Annotated[int, Meta(ge=0, le=4095)]
    size: Annotated[int, Meta(ge=1, le=4096)]
    all_sum: bool
    seconds: Annotated[float, Meta(ge=0, le=1e6)]
    bytes_per_second: Count
    python: Version
    mlx: Version
    mlx_lm: Version
    platform: Version


def checked(question: str, line: bytes) -> dict[str, Any]:
    """The answer in a line, as plain JSON values. Raises ValueError when it is not as its schema says."""
    schema = Failed if line.startswith(FAILED) else SCHEMAS[question]
    return decoded(line, schema)


def done(path: FilePath) -> TrainingDone:
    """A done.json that a host wrote. Raises ValueError with the reason when it is none."""
    if path.stat().st_size > DONE_BYTES:
        raise ValueError(f"it is longer than {DONE_BYTES >> 20} MiB")
    return _read(path.read_bytes(), TrainingDone)


def decoded(line: bytes, schema: type[Struct]) -> dict[str, Any]:
    """A line of JSON as plain values, with texts that can be printed. Raises ValueError when it breaks the schema."""
    plain: dict[str, Any] = _safe(msgspec.to_builtins(_read(line, schema)))
    return plain


def _read(text: bytes, schema: type[Schema]) -> Schema:
    try:
        value = msgspec.json.decode(text, type=schema)  # stops at the first wrong value, before it takes memory
        json.loads(text, object_pairs_hook=_once)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise ValueError(printable(str(error))[:SHOWN]) from error
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object in which each key stands once: two readers of another could see two values."""
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a key stands twice")
    return table


def _safe(value: Any) -> Any:
    """The value with texts that cannot steer a terminal."""
    if isinstance(value, dict):
        return {printable(key): inner if key in EXACT else _safe(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_safe(inner) for inner in value]
    return printable(value) if isinstance(value, str) else value
