"""What hosts must be and have before a recipe can train on them; pure, from what they say of themselves."""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thunder_train import ThunderError, models
from thunder_train.agent.client import machine
from thunder_train.config.project import Cluster, Recipe, is_local
from thunder_train.core import files
from thunder_train.core import paths as layout
from thunder_train.launch import fit

CLOCK_S = 2.0
"""Farthest that a clock may be off."""
FIT_ERROR = 1.25
"""What `doit fit` reckons is right within a quarter: less than that is no reason to refuse a training."""
DISK_BYTES = 100_000_000
"""Free disk that a training needs beside its inputs: checkpoints, logs, tokens."""
NAMED = 3
"""Differing files that a message names."""

Facts = dict[str, Any]


@dataclass(frozen=True)
class Wanted:
    """A file that each host needs as it is here. bytes: None when only its hash is known."""

    path: str
    bytes: int | None
    sha256: str


def wanted(recipe: Recipe, root: Path) -> list[Wanted]:
    """Scripts, dataset and model, as far as they are made here: a preflight may come before them."""
    run, data = root / "runs" / recipe.name, root / "data" / recipe.dataset.name
    lock = root / models.home(recipe.model) / "model.lock.json"
    found = [
        Wanted(str(path.relative_to(root)), None, files.sha256(path))
        for path in (*(run / name for name in layout.SENT), lock)
        if path.is_file()
    ]
    if (data / "manifest.json").is_file():
        splits = files.read_json(data / "manifest.json")["splits"]
        folder = f"data/{recipe.dataset.name}"
        found += [Wanted(f"{folder}/{name}.jsonl", None, split["sha256"]) for name, split in sorted(splits.items())]
    if lock.is_file():
        locked = files.read_json(lock)
        folder = models.on_hosts(recipe.model, locked)
        found += [Wanted(f"{folder}/{each['path']}", each["bytes"], each["sha256"]) for each in locked["files"]]
    return found


def to_bring(host: str, there: Facts, here: Facts, recipe: Recipe, files_wanted: list[Wanted]) -> list[ThunderError]:
    """What a host lacks or has otherwise than this machine, which a sync mends. there, here: facts of both."""
    if is_local(host):
        return []
    where, cluster = f"host {host}", recipe.cluster
    if not there["has_project"]:
        lacks = "holds no Thunder Train" if there["has_folder"] else "is missing"
        return [ThunderError(f"no project there: {cluster.folder} {lacks}", where, _sync(recipe))]
    if not there["has_python"]:
        return [ThunderError(f"{cluster.folder} has no {cluster.python}", where, _sync(recipe))]
    return [*version_problems(host, there, here, recipe), *file_problems(host, there, here, recipe, files_wanted)]


def version_problems(host: str, there: Facts, here: Facts, recipe: Recipe) -> list[ThunderError]:
    """Other versions than this machine's; of Python the minor one, for patches of it change no number."""
    minor = ".".join(here["python"].split(".")[:2])
    new = f"remove {recipe.cluster.folder}/.venv there and run"
    again = f"{_sync(recipe)}; if that is not enough, {new} it again"
    mends = {
        "mlx": ("mlx", again),
        "mlx_lm": ("mlx-lm", again),
        "python": ("Python", f"install Python {minor} there, {new} `./doit sync:{recipe.name}`"),
        "thunder_train": ("Thunder Train", _sync(recipe)),
    }
    return [
        ThunderError(
            f"has {shown} {there[name]}, and this machine {here[name]}" if there[name] else f"has no {shown}",
            f"host {host}",
            mend,
        )
        for name, (shown, mend) in mends.items()
        if there[name] != here[name] and not (name == "python" and there[name].startswith(f"{minor}."))
    ]


def file_problems(
    host: str, there: Facts, here: Facts, recipe: Recipe, files_wanted: list[Wanted]
) -> list[ThunderError]:
    """Code, scripts, dataset and model that are missing or are not those of this machine."""
    missing = [each.path for each in files_wanted if each.path not in there["files"]]
    other = [each.path for each in files_wanted if each.path in there["files"] and not _is_same(each, there)]
    code = [path for path, sha256 in sorted(here["code"].items()) if there["code"].get(path) != sha256]
    told = (("missing there", missing), ("not the same as here", other), ("other code than here", code))
    return [ThunderError(f"{_named(paths)}: {how}", f"host {host}", _sync(recipe)) for how, paths in told if paths]


def _is_same(each: Wanted, there: Facts) -> bool:
    return bool(there["files"][each.path][1] == each.sha256)


def memory_bytes(host: str, cluster: Cluster, rank_peaks: list[int]) -> int:
    """What the ranks of a host need together. rank_peaks: bytes of each rank; none while nobody knows."""
    return sum(peak for each, peak in zip(cluster.hosts, rank_peaks, strict=False) if machine(each.ssh) == host)


def own_problems(
    host: str, there: Facts, recipe: Recipe, files_wanted: list[Wanted], needed_bytes: int
) -> list[ThunderError]:
    """Room, clock, environment, and workers that still run: what no sync mends.

    needed_bytes: memory of its ranks, as `doit fit` reckons; 0 while nobody knows.
    """
    where, found = f"host {host}", list[ThunderError]()
    if there["usable_memory_bytes"] * FIT_ERROR < needed_bytes:
        what = (
            f"has {fit.size(there['usable_memory_bytes'])} of memory, and its ranks need about {fit.size(needed_bytes)}"
        )
        found.append(ThunderError(what, where, f"end other programs there, or see `./doit fit:{recipe.name}`"))
    missing = (each.bytes or 0 for each in files_wanted if each.path not in there["files"] and not is_local(host))
    disk = DISK_BYTES + sum(missing)
    if there["free_disk_bytes"] < disk:
        what = f"has {fit.size(there['free_disk_bytes'])} of free disk, and needs {fit.size(disk)}"
        found.append(ThunderError(what, where, "make room there"))
    if abs(there["clock_skew_s"]) > CLOCK_S:
        side = "ahead of" if there["clock_skew_s"] > 0 else "behind"
        what = f"its clock is {abs(there['clock_skew_s']):.0f} s {side} this machine's"
        found.append(ThunderError(what, where, "set it: `sudo sntp -sS time.apple.com` on a Mac"))
    if there["fast_synch"] is not None:
        what = f"MLX_METAL_FAST_SYNCH={there['fast_synch']} is set: it can stop the GPU for good"
        found.append(ThunderError(what, where, "remove it from the shell's start files there"))
    stale = [_stale(host, there)] if there["workers"] and not is_local(host) else []
    return [*found, *stale, *rdma_problems(host, there, recipe.cluster)]


def _stale(host: str, there: Facts) -> ThunderError:
    pids = [str(one["pid"]) for one in there["workers"]]
    what = f"workers of an earlier run still run there: {there['workers'][0]['command']} (process {', '.join(pids)})"
    return ThunderError(what, f"host {host}", f"end them: `{_ssh(host, 'kill ' + ' '.join(pids))}`")


def rdma_problems(host: str, there: Facts, cluster: Cluster) -> list[ThunderError]:
    """Devices that the jaccl matrix names and the host does not have. Untested on a Mac."""
    named = sorted({device for each in cluster.hosts if machine(each.ssh) == host for device in each.rdma if device})
    if not cluster.backend.startswith("jaccl") or not named:
        return []
    where, has = f"host {host}", there["rdma"]
    if not has:
        what = "has no RDMA device" if has is not None else "has no `ibv_devices`, so no RDMA"
        return [
            ThunderError(what, where, "needs Thunderbolt 5, macOS 26.2 and `rdma_ctl enable` in Recovery; or use ring")
        ]
    absent = [device for device in named if device not in has]
    mend = "correct rdma in thunder.toml: the names change when a Mac starts"
    return [ThunderError(f"has no {', '.join(absent)}; it has {', '.join(has)}", where, mend)] if absent else []


def environment_problems(cluster: Cluster) -> list[ThunderError]:
    """Variables of the cluster that no rank should get."""
    if not any(pair.startswith("MLX_METAL_FAST_SYNCH=") for pair in cluster.envs):
        return []
    where = f"thunder.toml: clusters.{cluster.name}.envs"
    return [ThunderError("MLX_METAL_FAST_SYNCH can stop the GPU for good", where, "remove it")]


def _named(paths: list[str]) -> str:
    more = f" and {len(paths) - NAMED} more" if len(paths) > NAMED else ""
    return ", ".join(paths[:NAMED]) + more


def _sync(recipe: Recipe) -> str:
    return f"run `./doit sync:{recipe.name}`"


def _ssh(host: str, command: str) -> str:
    return shlex.join(["ssh", host, command])
