"""Preflight: whether every host of a recipe's cluster can train it now, and how good the links between them are.

Writes what preflight.json holds (schema thunder.preflight/2), prints it as tables, and raises every problem at once.
"""

import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from thunder_train import ThunderError, raise_all
from thunder_train.agent import client
from thunder_train.agent.client import HERE, Session
from thunder_train.cluster import hostfile as cluster
from thunder_train.cluster import links, readiness
from thunder_train.cluster.readiness import Facts, Wanted
from thunder_train.config.project import Host, Recipe, is_local
from thunder_train.core import columns, files
from thunder_train.launch import fit

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
    known, problems = readiness.wanted(recipe, Path()), list[ThunderError]()
    names = list(dict.fromkeys([HERE, *(client.machine(host.ssh) for host in recipe.cluster.hosts)]))
    with ThreadPoolExecutor() as pool, client.opened(names, recipe.cluster) as sessions:
        reckoned = pool.submit(_rank_peaks, recipe, problems)  # two seconds, while the hosts are asked
        answers = client.together(sessions, lambda each: _facts(each, recipe, known))
        problems += [answer for answer in answers.values() if isinstance(answer, ThunderError)]
        facts = {host: answer for host, answer in answers.items() if not isinstance(answer, ThunderError)}
        raise_all(problems if HERE not in facts else [])
        rows, cut = links.measured(recipe.cluster, {host: sessions[host] for host in facts}, facts)
    hosts = [host for host in names if host in facts and host in map(_machine_of, recipe.cluster.hosts)]
    lacks = {host: readiness.to_bring(host, facts[host], facts[HERE], recipe, known) for host in hosts}
    needs = {host: readiness.memory_bytes(host, recipe.cluster, reckoned.result()) for host in hosts}
    ills = {host: readiness.own_problems(host, facts[host], recipe, known, needs[host]) for host in hosts}
    notes = [] if is_synced else [str(each) for host in hosts for each in lacks[host]]
    if recipe.cluster.is_remote:
        states = {host: _state(len(ills[host]), len(lacks[host]), is_synced) for host in hosts}
        _show([_host_row(host, states[host], facts[host], needs[host]) for host in hosts], rows)
    problems += [each for host in hosts for each in ([] if notes else lacks[host]) + ills[host]]
    own = [*readiness.environment_problems(recipe.cluster), *cluster.address_problems(recipe.cluster)]
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
    columns.show(("host", "state", "Python", "mlx", "mlx-lm", "memory", "disk", "clock"), hosts)
    if rows:
        columns.show(("link", "address", "over", "round trip", "bandwidth"), [_link_row(row) for row in rows])


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
    columns.show(("rank", "host", "ranks", "all-sum", "bandwidth"), rows)


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
        raise ThunderError(what, where=f"cluster {where.name!r}", mend="check the addresses in thunder.toml")
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
