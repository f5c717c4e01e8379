"""Checks whether every host of a recipe's cluster can train it now, and measures the links between the hosts.

Asks all hosts, compares their answers with this machine's, prints them as tables and raises every problem at once.
Returns the JSON of preflight.json (schema thunder.preflight/2).
"""

import os
import shlex
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from thunder_train import ThunderError, raise_all
from thunder_train.agent import answers, client
from thunder_train.agent.client import Session
from thunder_train.cluster import hostfile, links, mac_hosts, required_files
from thunder_train.cluster.required_files import Needs
from thunder_train.config.project import THIS_MACHINE, Cluster, Recipe, is_local
from thunder_train.core import console, files, paths, process
from thunder_train.core.stat_cache import StatCache
from thunder_train.core.text import nfc, printable_lines
from thunder_train.launch import fit

CLOCK_S = 2.0
"""Largest accepted difference between a host's clock and this machine's."""
FIT_ERROR = 1.25
"""`doit fit` is right within a quarter: a training is refused only when it lacks more memory than that. On a Mac it
gets no such margin: beyond Metal's working set the system becomes slow or ends a rank."""
DISK_BYTES = 100_000_000
"""Free disk that a training needs beside its inputs: checkpoints, logs, tokens."""
NAMED = 3
"""Files that a message names; the others are counted."""
RANK_LINE = "thunder-smoke "
"""Prefix of the line in which each rank of worker/allreduce_check.py reports its result."""
ALL_REDUCE_WITHIN_S = 120
LOG_BYTES = 1 << 16
"""The end of a log that is read."""
READ_BYTES_PER_S = 1e8
"""Slowest reading of files for which a host still gets enough time to hash them."""
REPORTED = (
    "python",
    "mlx",
    "mlx_lm",
    "thunder_train",
    "platform",
    "usable_memory_bytes",
    "free_disk_bytes",
    "clock_skew_s",
)
"""Facts of a host that preflight.json holds."""

Facts = dict[str, Any]
"""A host's answer to the question `facts` of agent/main.py, and clock_skew_s."""


def preflight(recipe: Recipe, logs: Path, is_synced: bool = True) -> dict[str, Any]:
    """preflight.json, when the recipe could be trained. Raises ThunderError with every problem.

    First all hosts are asked at once, then the links are measured, then, when all is well, the ranks run an all-reduce
    test with their logs in `logs`. is_synced=False: missing files are notes, not errors, and with notes the all-reduce
    test is skipped.
    """
    cluster, problems = recipe.cluster, list[ThunderError]()
    needs = (
        required_files.existing_needs(recipe, Path(), StatCache(Path(paths.STATS))) if cluster.is_remote else Needs({})
    )
    with (
        ThreadPoolExecutor() as pool,
        client.opened(dict.fromkeys([THIS_MACHINE, *cluster.machines]), cluster) as sessions,
    ):
        peaks = pool.submit(_rank_peaks, recipe, problems)  # takes two seconds, in which the hosts answer
        facts = client.attempts(sessions, lambda session: _facts(session, recipe, needs), problems)
        raise_all(problems if THIS_MACHINE not in facts else [])
        rows, link_problems = links.measure(cluster, {host: sessions[host] for host in facts}, facts)
    hosts = [host for host in facts if host in cluster.machines]
    lacks = {host: sync_problems(host, facts[host], facts[THIS_MACHINE], recipe, needs) for host in hosts}
    memory = {host: memory_bytes(host, cluster, peaks.result()) for host in hosts}
    faults = {host: host_problems(host, facts[host], recipe, needs, memory[host]) for host in hosts}
    if cluster.is_remote:
        states = {host: _state(len(faults[host]), len(lacks[host]), is_synced) for host in hosts}
        _print_tables([_host_row(host, states[host], facts[host], memory[host]) for host in hosts], rows)
    _print_warnings([warning for host in hosts for warning in mac_hosts.warnings(host, facts[host])])
    notes = [] if is_synced else [str(problem) for host in hosts for problem in lacks[host]]
    problems += [problem for host in hosts for problem in [*(lacks[host] if is_synced else []), *faults[host]]]
    raise_all([*problems, *environment_problems(cluster), *hostfile.address_problems(cluster), *link_problems])
    _print_notes(notes)
    return {
        "schema": "thunder.preflight/2",
        "backend": cluster.backend,
        "hosts": [{"host": host, **_reported(facts[host]), "needed_memory_bytes": memory[host]} for host in hosts],
        "links": rows,
        "ranks": [] if notes else _all_reduce(recipe, logs),
        "notes": notes,
    }


def _rank_peaks(recipe: Recipe, problems: list[ThunderError]) -> list[int]:
    """Peak memory of each rank in bytes; empty for local ranks, without a training, and before the model is here."""
    if recipe.is_imported or not recipe.cluster.is_remote or not fit.has_config(recipe.model, Path()):
        return []
    try:
        return fit.rank_peaks(recipe, Path())
    except ThunderError as error:
        problems.append(error)
        return []


def _facts(session: Session, recipe: Recipe, needs: Needs) -> Facts:
    """A host's facts. clock_skew_s: seconds by which its clock is ahead of ours, less the answer's travel time."""
    cluster = recipe.cluster
    question: Facts = {"folder": cluster.folder, "python": cluster.python, "paths": {}}
    if is_local(session.host):
        question |= {"folder": str(Path.cwd()), "python": sys.executable}
    else:
        question["paths"] = {path: file.bytes for path, file in {**needs.files, **needs.elsewhere}.items()}
    size = sum(question["paths"].values())
    answer = session.ask(client.ANSWER_WITHIN_S + size / READ_BYTES_PER_S, ask="facts", **question)
    answer["usable_memory_bytes"] = mac_hosts.usable_memory(answer)
    return {**answer, "clock_skew_s": round(answer["time_s"] - time.time(), 1) + 0.0}  # + 0.0: no -0.0


def _reported(facts: Facts) -> Facts:
    return {name: facts[name] for name in REPORTED}


def sync_problems(host: str, there: Facts, here: Facts, recipe: Recipe, needs: Needs) -> list[ThunderError]:
    """What a host lacks or has in another version than this machine: a sync brings it. there, here: facts of both."""
    if is_local(host):
        return []
    where, cluster = f"host {host}", recipe.cluster
    if not there["has_project"]:
        state = "holds no Thunder Train" if there["has_folder"] else "is missing"
        return [ThunderError(f"no project there: {cluster.folder} {state}", where, _sync(recipe))]
    if not there["has_python"]:
        what = f"{cluster.python} of {cluster.folder} is missing or does not start"
        return [ThunderError(what, where, _sync(recipe) if cluster.is_python_ours else _theirs(recipe, "make it run"))]
    return [*version_problems(host, there, here, recipe), *file_problems(host, there, recipe, needs)]


def version_problems(host: str, there: Facts, here: Facts, recipe: Recipe) -> list[ThunderError]:
    """Versions that differ from this machine's. Python's patch version may differ: it changes no number."""
    minor = ".".join(here["python"].split(".")[:2])
    packages = f"{_sync(recipe)}; if that is not enough, remove {recipe.cluster.folder}/.venv-* there and run it again"
    python = f"install Python {minor} there and {_sync(recipe)}"
    if not recipe.cluster.is_python_ours:
        packages, python = _theirs(recipe, "install the same there"), _theirs(recipe, "make it the same")
    hints = {
        "mlx": ("mlx", packages),
        "mlx_lm": ("mlx-lm", packages),
        "python": ("Python", python),
        "thunder_train": ("Thunder Train", _sync(recipe)),
    }
    return [
        ThunderError(
            f"has {title} {there[name]}, and this machine {here[name]}" if there[name] else f"has no {title}",
            f"host {host}",
            hint,
        )
        for name, (title, hint) in hints.items()
        if there[name] != here[name] and not (name == "python" and there[name].startswith(f"{minor}."))
    ]


def file_problems(host: str, there: Facts, recipe: Recipe, needs: Needs) -> list[ThunderError]:
    """Files of sync's list that are missing on a host or differ from this machine's."""
    hashes = {nfc(path): sha256 for path, (_, sha256) in there["files"].items()}  # a Mac may answer in another form
    missing, changed, code = list[str](), list[str](), list[str]()
    for path, file in needs.files.items():
        if hashes.get(nfc(path)) != file.sha256:
            is_code = path.startswith(f"{required_files.CODE}/")
            (code if is_code else changed if nfc(path) in hashes else missing).append(path)
    groups = (("missing there", missing), ("not the same as here", changed), ("other code than here", code))
    elsewhere = [path for path, file in needs.elsewhere.items() if hashes.get(nfc(path)) != file.sha256]
    return [
        *(ThunderError(f"{_named(names)}: {what}", f"host {host}", _sync(recipe)) for what, names in groups if names),
        *(
            ThunderError(f"{path} is missing or differs", f"host {host}", required_files.ELSEWHERE_HINT)
            for path in elsewhere
        ),
    ]


def memory_bytes(host: str, cluster: Cluster, rank_peaks: list[int]) -> int:
    """Bytes of memory that the ranks of a host need together; 0 without rank_peaks, the bytes of each rank."""
    return sum(peak for each, peak in zip(cluster.hosts, rank_peaks, strict=False) if each.machine == host)


def host_problems(host: str, there: Facts, recipe: Recipe, needs: Needs, needed_bytes: int) -> list[ThunderError]:
    """Problems that no sync solves: memory, disk, clock, environment, running workers, RDMA.

    needed_bytes: memory of its ranks as `doit fit` computes it, 0 if unknown.
    """
    where, problems = f"host {host}", list[ThunderError]()
    if there["usable_memory_bytes"] * (1.0 if there["mac"] else FIT_ERROR) < needed_bytes:
        usable = fit.size(there["usable_memory_bytes"])
        what = f"has {usable} of memory, and its ranks need about {fit.size(needed_bytes)}"
        hint = "lower micro_tokens" if there["mac"] else "end other programs there"
        problems.append(ThunderError(what, where, f"{hint}, or see `./doit fit:{recipe.name}`"))
    missing = (file.bytes for path, file in needs.files.items() if path not in there["files"] and not is_local(host))
    disk = DISK_BYTES + sum(missing)
    if there["free_disk_bytes"] < disk:
        what = f"has {fit.size(there['free_disk_bytes'])} of free disk, and needs {fit.size(disk)}"
        problems.append(ThunderError(what, where, "free space there"))
    if abs(there["clock_skew_s"]) > CLOCK_S:
        side = "ahead of" if there["clock_skew_s"] > 0 else "behind"
        what = f"its clock is {abs(there['clock_skew_s']):.0f} s {side} this machine's"
        problems.append(ThunderError(what, where, "set it: `sudo sntp -sS time.apple.com` on a Mac"))
    if there["fast_synch"] is not None:
        what = f"MLX_METAL_FAST_SYNCH={there['fast_synch']} is set: the GPU can hang until a restart"
        problems.append(ThunderError(what, where, "remove it from the shell's start files there"))
    if there["workers"] and not is_local(host):
        problems.append(_worker_problem(host, there["workers"]))
    return [*problems, *mac_hosts.problems(host, there, recipe.cluster)]


def _worker_problem(host: str, workers: list[dict[str, Any]]) -> ThunderError:
    pids = [str(worker["pid"]) for worker in workers]
    what = f"workers of an earlier run still run there: {workers[0]['command']} (process {', '.join(pids)})"
    command = shlex.join(["ssh", host, f"kill {' '.join(pids)}"])
    return ThunderError(what, f"host {host}", f"end them: `{command}`")


def environment_problems(cluster: Cluster) -> list[ThunderError]:
    """Variables in the cluster's envs that no rank must get."""
    if not any(pair.startswith("MLX_METAL_FAST_SYNCH=") for pair in cluster.envs):
        return []
    where = f"thunder.toml: clusters.{cluster.name}.envs"
    return [ThunderError("MLX_METAL_FAST_SYNCH can make the GPU hang until a restart", where, "remove it")]


def _named(names: list[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def _sync(recipe: Recipe) -> str:
    return f"run `./doit sync:{recipe.name}`"


def _theirs(recipe: Recipe, hint: str) -> str:
    """What to do about an interpreter that sync does not make."""
    return f"{hint}, or leave out python of [clusters.{recipe.cluster.name}]: then sync makes .venv there"


def _state(faults: int, lacks: int, is_synced: bool) -> str:
    problems = faults + lacks * is_synced
    if problems:
        return f"{problems} problem" + "s" * (problems > 1)
    return "needs a sync" if lacks else "ready"


def _print_tables(hosts: list[tuple[str, ...]], rows: list[dict[str, Any]]) -> None:
    console.print_table(("host", "state", "system", "Python", "mlx", "mlx-lm", "memory", "disk", "clock"), hosts)
    if rows:
        console.print_table(("link", "address", "over", "round trip", "bandwidth"), [_link_row(row) for row in rows])


def _print_warnings(warnings: list[ThunderError]) -> None:
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)


def _print_notes(notes: list[str]) -> None:
    if notes:
        print("\n".join([*notes, "the all-reduce test is skipped until a sync has brought them"]))


def _host_row(host: str, state: str, facts: Facts, needed_bytes: int) -> tuple[str, ...]:
    versions = (facts["python"], facts["mlx"] or "-", facts["mlx_lm"] or "-")
    needed = f"{fit.size(needed_bytes)} of " if needed_bytes else ""
    room = (f"{needed}{fit.size(facts['usable_memory_bytes'])}", fit.size(facts["free_disk_bytes"]))
    return (host, state, mac_hosts.system(facts), *versions, *room, f"{facts['clock_skew_s']:+.1f} s")


def _link_row(row: dict[str, Any]) -> tuple[str, ...]:
    name = f"{row['from']} -> {row['to']}"
    if "error" in row:
        return (name, row["address"], "-", row["error"], "needed" if row["is_needed"] else "not needed")
    figures = (f"{row['latency_ms']:.2f} ms", f"{fit.size(row['bytes_per_second'])}/s")
    return (name, row["address"], row["interface"], *figures)


def _all_reduce(recipe: Recipe, logs: Path) -> list[dict[str, Any]]:
    """Each rank's result of worker/allreduce_check.py: rank, size, all_sum, bytes_per_second; and its host."""
    cluster, path = recipe.cluster, logs / "hostfile.json"
    if cluster.is_remote:  # each rank reads the file on its own host, which has only the run's
        path = files.require(Path(paths.run(recipe.name)) / "hostfile.json", f"run `./doit hostfile:{recipe.name}`")
    else:
        files.write_json(path, hostfile.hostfile(cluster))
    argv = [sys.executable, "-m", "thunder_train.launch", "--hostfile", str(path), "--log-dir", str(logs)]
    argv += ["--module", "thunder_train.worker.allreduce_check", "--start-timeout", str(ALL_REDUCE_WITHIN_S)]
    if cluster.is_remote:
        argv += ["--folder", cluster.folder, "--python", cluster.python]
    if (problem := _launch_problem(argv)) is not None:
        what = f"the all-reduce test of {len(cluster.hosts)} ranks failed: {problem}"
        raise ThunderError(what, where=f"cluster {cluster.name!r}", hint="check the addresses in thunder.toml")
    results = [{"host": host.ssh, **_rank_result(rank, host.ssh, logs)} for rank, host in enumerate(cluster.hosts)]
    if cluster.is_remote:
        _print_ranks(results)
    return results


def _launch_problem(argv: list[str]) -> str | None:
    """What a launcher printed about its failure, None if it succeeded. It ends with this process, however that ends."""
    environment = {**os.environ, "THUNDER_STDIN": "1"}
    with tempfile.TemporaryFile() as errors:
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.DEVNULL, "stderr": errors}
        with process.started(argv, env=environment, **pipes) as launcher:
            status = launcher.wait()
        errors.seek(max(0, errors.seek(0, os.SEEK_END) - LOG_BYTES))
        text = errors.read().decode("utf-8", "replace").strip()
    return printable_lines(text) if status else None


def _rank_result(rank: int, host: str, logs: Path) -> dict[str, Any]:
    """What a rank reported in its log."""
    log = logs / f"rank-{rank}.log"
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - LOG_BYTES))
        lines = file.read().decode("utf-8", "replace").splitlines()
    results = [line.removeprefix(RANK_LINE) for line in lines if line.startswith(RANK_LINE)]
    if not results:
        raise ThunderError("reported no result of the all-reduce test", f"rank {rank} ({host})", f"read {log}")
    try:
        return answers.decoded(results[-1].encode(), answers.RankResult)
    except ValueError as error:
        what = f"reported something else than a result of the all-reduce test: {error}"
        raise ThunderError(what, f"rank {rank} ({host})", client.CHECK_HOST) from None


def _print_ranks(results: list[dict[str, Any]]) -> None:
    rows = [
        (str(each["rank"]), each["host"], f"size={each['size']}", "right", f"{fit.size(each['bytes_per_second'])}/s")
        for each in results
    ]
    console.print_table(("rank", "host", "ranks", "all-reduce", "bandwidth"), rows)
