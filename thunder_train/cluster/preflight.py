"""What hosts must be and have before a recipe can train on them; pure, from what they say of themselves.

Preflight: whether every host of a recipe's cluster can train it now, and how good the links between them are.

Writes what preflight.json holds (schema thunder.preflight/2), prints it as tables, and raises every problem at once.
"""

import json
import shlex
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thunder_train import ThunderError, models, raise_all
from thunder_train.agent import client
from thunder_train.agent.client import HERE, Session, machine
from thunder_train.cluster import hostfile as cluster
from thunder_train.cluster import links
from thunder_train.config.project import Cluster, Host, Recipe, is_local
from thunder_train.core import console, files
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
    hints = {
        "mlx": ("mlx", again),
        "mlx_lm": ("mlx-lm", again),
        "python": ("Python", f"install Python {minor} there, {new} `./doit sync:{recipe.name}`"),
        "thunder_train": ("Thunder Train", _sync(recipe)),
    }
    return [
        ThunderError(
            f"has {shown} {there[name]}, and this machine {here[name]}" if there[name] else f"has no {shown}",
            f"host {host}",
            hint,
        )
        for name, (shown, hint) in hints.items()
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
    hint = "correct rdma in thunder.toml: the names change when a Mac starts"
    return [ThunderError(f"has no {', '.join(absent)}; it has {', '.join(has)}", where, hint)] if absent else []


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


SMOKE = "thunder-smoke "
"""Begins the line in which worker/smoke.py tells what a rank saw."""
SMOKE_WITHIN_S = 120
READ_BYTES_PER_S = 1e8
"""Slowest that a host may read its files: what the time it has to answer allows for."""
TOLD = (
    "python",
    "mlx",
    "mlx_lm",
    "thunder_train",
    "platform",
    "usable_memory_bytes",
    "free_disk_bytes",
    "clock_skew_s",
)


def preflight(recipe: Recipe, logs: Path, is_synced: bool = True) -> dict[str, Any]:
    """What hosts, links and ranks said of themselves; ThunderError with every problem when a training could not run.

    Hosts are asked first, at once; then the links are measured; the all-sum over all ranks follows when all are well.
    is_synced False: a sync is still to come, so what it will bring is told, and no problem; without it no rank starts.
    """
    known, problems = wanted(recipe, Path()), list[ThunderError]()
    names = list(dict.fromkeys([HERE, *(client.machine(host.ssh) for host in recipe.cluster.hosts)]))
    with ThreadPoolExecutor() as pool, client.opened(names, recipe.cluster) as sessions:
        reckoned = pool.submit(_rank_peaks, recipe, problems)  # two seconds, while the hosts are asked
        answers = client.together(sessions, lambda each: _facts(each, recipe, known))
        problems += [answer for answer in answers.values() if isinstance(answer, ThunderError)]
        facts = {host: answer for host, answer in answers.items() if not isinstance(answer, ThunderError)}
        raise_all(problems if HERE not in facts else [])
        rows, cut = links.measured(recipe.cluster, {host: sessions[host] for host in facts}, facts)
    hosts = [host for host in names if host in facts and host in map(_machine_of, recipe.cluster.hosts)]
    lacks = {host: to_bring(host, facts[host], facts[HERE], recipe, known) for host in hosts}
    needs = {host: memory_bytes(host, recipe.cluster, reckoned.result()) for host in hosts}
    ills = {host: own_problems(host, facts[host], recipe, known, needs[host]) for host in hosts}
    notes = [] if is_synced else [str(each) for host in hosts for each in lacks[host]]
    if recipe.cluster.is_remote:
        states = {host: _state(len(ills[host]), len(lacks[host]), is_synced) for host in hosts}
        _show([_host_row(host, states[host], facts[host], needs[host]) for host in hosts], rows)
    problems += [each for host in hosts for each in ([] if notes else lacks[host]) + ills[host]]
    own = [*environment_problems(recipe.cluster), *cluster.address_problems(recipe.cluster)]
    raise_all([*problems, *own, *cut])
    if notes:
        print("\n".join([*notes, "the all-sum over all ranks waits for that"]))
    return {
        "schema": "thunder.preflight/2",
        "backend": recipe.cluster.backend,
        "hosts": [{"host": host, **_told(facts[host]), "needed_memory_bytes": needs[host]} for host in hosts],
        "links": rows,
        "ranks": [] if notes else _smoke(recipe, logs),
        "notes": notes,
    }


def _told(facts: Facts) -> Facts:
    return {name: facts[name] for name in TOLD}


def _rank_peaks(recipe: Recipe, problems: list[ThunderError]) -> list[int]:
    """Memory that each rank needs; nothing for ranks of this machine alone, and before the model is here."""
    if not recipe.cluster.is_remote or not fit.has_config(recipe.model, Path()):
        return []
    try:
        return fit.rank_peaks(recipe, Path())
    except ThunderError as error:
        problems.append(error)
        return []


def _machine_of(host: Host) -> str:
    return client.machine(host.ssh)


def _facts(each: Session, recipe: Recipe, known: list[Wanted]) -> Facts:
    """A host's facts, and how far its clock is ahead of ours, which the way of the answer makes a little less."""
    is_here = is_local(each.host)
    folder, python = (str(Path.cwd()), sys.executable) if is_here else (recipe.cluster.folder, recipe.cluster.python)
    paths = {} if is_here else {one.path: one.bytes for one in known}
    within_s = client.ANSWER_WITHIN_S + sum(one.bytes or 0 for one in known) / READ_BYTES_PER_S
    told = each.ask(within_s, ask="facts", folder=folder, python=python, paths=paths)
    if "error" in told:
        raise ThunderError(told["error"], f"host {each.host}", "mend it there")
    return {**told, "clock_skew_s": round(told["time_s"] - time.time(), 1) + 0.0}  # + 0.0: no -0.0


def _show(hosts: list[tuple[str, ...]], rows: list[dict[str, Any]]) -> None:
    console.print_table(("host", "state", "Python", "mlx", "mlx-lm", "memory", "disk", "clock"), hosts)
    if rows:
        console.print_table(("link", "address", "over", "round trip", "bandwidth"), [_link_row(row) for row in rows])


def _state(ills: int, lacks: int, is_synced: bool) -> str:
    problems = ills + lacks * is_synced
    if problems:
        return f"{problems} problem" + "s" * (problems > 1)
    return "needs a sync" if lacks else "ready"


def _host_row(host: str, state: str, told: Facts, needed_bytes: int) -> tuple[str, ...]:
    versions = (told["python"], told["mlx"] or "-", told["mlx_lm"] or "-")
    needed = f"{fit.size(needed_bytes)} of " if needed_bytes else ""
    room = (f"{needed}{fit.size(told['usable_memory_bytes'])}", fit.size(told["free_disk_bytes"]))
    return (host, state, *versions, *room, f"{told['clock_skew_s']:+.1f} s")


def _link_row(row: dict[str, Any]) -> tuple[str, ...]:
    name = f"{row['from']} -> {row['to']}"
    if "error" in row:
        return (name, row["address"], "-", row["error"], "needed" if row["is_needed"] else "not needed")
    figures = (f"{row['latency_ms']:.2f} ms", f"{fit.size(row['bytes_per_second'])}/s")
    return (name, row["address"], row["interface"], *figures)


def _show_ranks(ranks: list[dict[str, Any]]) -> None:
    rows = [
        (str(each["rank"]), each["host"], f"size={each['size']}", "right", f"{fit.size(each['bytes_per_second'])}/s")
        for each in ranks
    ]
    console.print_table(("rank", "host", "ranks", "all-sum", "bandwidth"), rows)


def _smoke(recipe: Recipe, logs: Path) -> list[dict[str, Any]]:
    """Every rank's own word on the ring: its size, whether all-sums were right, and how many bytes a second."""
    where, hostfile = recipe.cluster, logs / "hostfile.json"
    if where.is_remote:  # each rank reads the file on its own host, where only the run's own one is
        hostfile = files.require(Path("runs") / recipe.name / "hostfile.json", f"run `./doit hostfile:{recipe.name}`")
    else:
        files.write_json(hostfile, cluster.hostfile(where))
    argv = [sys.executable, "-m", "thunder_train.launch", "--hostfile", str(hostfile), "--log-dir", str(logs)]
    argv += ["--module", "thunder_train.worker.allreduce_check", "--start-timeout", str(SMOKE_WITHIN_S)]
    if where.is_remote:
        argv += ["--folder", where.folder, "--python", where.python]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode:
        what = f"the all-sum over {len(where.hosts)} ranks failed: {done.stderr.strip()}"
        raise ThunderError(what, where=f"cluster {where.name!r}", hint="check the addresses in thunder.toml")
    ranks = []
    for rank, host in enumerate(where.hosts):
        lines = (logs / f"rank-{rank}.log").read_text(encoding="utf-8", errors="replace").splitlines()
        told = [json.loads(line.removeprefix(SMOKE)) for line in lines if line.startswith(SMOKE)]
        if not told:
            raise ThunderError(
                "said nothing of the all-sum", f"rank {rank} ({host.ssh})", f"read {logs}/rank-{rank}.log"
            )
        ranks.append({"host": host.ssh, **told[-1]})
    if where.is_remote:
        _show_ranks(ranks)
    return ranks
