"""Whole runs of nko-nano over ssh on two and on four hosts, and what a second host brings. Needs root, as the lab does.

.venv/bin/python benchmarks/cluster.py [--steps 160] [--turns 3] [--write]

Hosts are network namespaces with a real sshd each (tests/system/cluster/lab.py), bare but for an environment.
--write: put the tables into benchmarks/CLUSTER.md. The scaling wants a quiet machine of two cores: each host gets one.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))

from tests.helpers.project_copy import Copy, copy_sources  # noqa: E402
from tests.system.cluster.lab import VENV, Lab, lab, missing  # noqa: E402
from tests.system.cluster.machine import LINK, PROJECT_FOLDER, Machine  # noqa: E402

SAME = ("adapter/adapters.safetensors", "adapter/done.json", "predictions.jsonl", "decisions.jsonl", "eval.json")
"""Files of a run that must not show where its ranks ran."""
LINKS = {"as it is": "", "1 Gbit/s": "1gbit", "100 Mbit/s": "100mbit"}
WARM = 3
"""Lines of a training, of ten steps each, that are not counted: they fill the memory pools."""


@dataclass(frozen=True)
class Whole:
    """A run of everything. seconds: over ssh, and by local ranks; different: files that are not the same bytes."""

    hosts: int
    seconds: float
    local_s: float
    different: list[str]
    round_trip_ms: float
    gated_cer: float
    report: str


def furnish(it: Lab, steps: int | None = None) -> None:
    """The recipe `over` on head: nko-nano on the hosts; and hosts with an environment alone."""
    head = it.head.project
    hosts = "".join(f'[[clusters.lab.hosts]]\nssh = "{each.name}"\nips = ["{each.address}"]\n' for each in it.hosts)
    with (head / "thunder.toml").open("a") as file:
        file.write(f'\n[clusters.lab]\nfolder = "{PROJECT_FOLDER}"\n{hosts}')
    (head / "recipes/over.toml").write_text(recipe("lab", steps))
    for host in it.hosts:
        shutil.rmtree(host.project)
        host.project.mkdir()
        (host.project / ".venv").symlink_to(VENV)


def recipe(cluster: str, steps: int | None) -> str:
    """nko-nano on another cluster, and perhaps shorter."""
    text = (PROJECT / "recipes/nko-nano.toml").read_text().replace('cluster = "local"', f'cluster = "{cluster}"')
    if steps is None:
        return text
    return text.replace("num_iters = 300", f"num_iters = {steps}").replace("log_every = 20", "log_every = 10")


def whole(hosts: int) -> Whole:
    """nko-nano over ssh from bare hosts to the manifest, and the same by local ranks."""
    with tempfile.TemporaryDirectory() as folder, lab(hosts) as it:
        here = copy_sources(Path(folder))
        with (here.path / "thunder.toml").open("a") as file:
            file.write(f'\n[clusters.here]\nbackend = "ring"\nranks = {hosts}\n')
        (here.path / "recipes/over.toml").write_text(recipe("here", None))
        local_s = _timed(here)
        furnish(it)
        began = time.perf_counter()
        done = it.head.run([".venv/bin/python", "-m", "doit", "manifest:over"], timeout=1800)
        seconds = time.perf_counter() - began
        must(done.returncode, done.stdout + done.stderr)
        ours, theirs = (path / "runs/over" for path in (it.head.project, here.path))
        links = json.loads((ours / "preflight.json").read_text())["links"]
        conditions = json.loads((ours / "eval.json").read_text())["conditions"]
        different = [name for name in SAME if (ours / name).read_bytes() != (theirs / name).read_bytes()]
        print(f"{hosts} hosts: {seconds:.0f} s over ssh, {local_s:.0f} s locally; differ: {different}", flush=True)
        return Whole(
            hosts,
            seconds,
            local_s,
            different,
            max(link["latency_ms"] for link in links if link["is_needed"]),
            next(e["cer"] for e in conditions if (e["condition"], e["partition"]) == ("adapter_gated", "all")),
            (ours / "report.md").read_text(),
        )


def must(status: int, output: str) -> None:
    """End the benchmark with the last lines of what failed."""
    if status:
        raise SystemExit("\n".join(output.splitlines()[-20:]))


def _timed(here: Copy) -> float:
    began = time.perf_counter()
    done = here.doit("manifest:over")
    must(done.status, done.output)
    return time.perf_counter() - began


def scaling(steps: int, turns: int) -> dict[str, tuple[float, float]]:
    """{link: (target tokens a second on one host, on two)}, each host on a core of its own, rows per rank the same."""
    found: dict[str, list[list[float]]] = {name: [[], []] for name in LINKS}
    with lab(1) as one, lab(2) as two:
        for it in (one, two):
            furnish(it, steps)
            for core, host in enumerate(it.hosts):
                for pid in host.pids():  # what sshd starts gets its core
                    os.sched_setaffinity(pid, {core})
        for _ in range(turns):
            for name, rate in LINKS.items():
                for host in two.hosts:
                    limit(host, rate)
                for number, it in enumerate((one, two)):
                    found[name][number].append(trained(it))
                    print(f"{name}: {number + 1} hosts: {found[name][number][-1]:.0f} target tokens/s", flush=True)
    return {name: (statistics.median(a), statistics.median(b)) for name, (a, b) in found.items()}


def limit(host: Machine, rate: str) -> None:
    """Make a host's training link this slow; "" for as fast as it is."""
    host.tc("qdisc", "replace", "dev", LINK, "root", "pfifo")
    if rate:
        host.tc(*f"qdisc replace dev {LINK} root tbf rate {rate} burst 256kb latency 50ms".split())


def trained(it: Lab) -> float:
    """Target tokens a second of a training on the hosts of a lab, its first lines apart."""
    shutil.rmtree(it.head.project / "runs/over", ignore_errors=True)
    shutil.rmtree(it.head.project / ".thunder", ignore_errors=True)
    done = it.head.run([".venv/bin/python", "-m", "doit", "train:over"], timeout=1800)
    must(done.returncode, done.stdout + done.stderr)
    lines = (it.head.project / "runs/over/metrics.jsonl").read_text().splitlines()
    events = [each for each in map(json.loads, lines) if each["event"] == "train"][WARM:]
    # Each line tells the tokens of its own steps and their rate; validations between them are not counted.
    return sum(each["tokens"] for each in events) / sum(
        each["tokens"] / each["target_tokens_per_second"] for each in events
    )


def page(runs: Iterable[Whole], rates: dict[str, tuple[float, float]], steps: int, turns: int, load: float) -> str:
    """The tables as Markdown."""
    first = (
        f"{os.cpu_count()} cores, {platform.machine()}, mlx {version('mlx')}, mlx-lm {version('mlx-lm')}; load before: "
        f"{load:.1f}."
    )
    text = [
        "# What a cluster costs and brings",
        f"Written by `benchmarks/cluster.py --write`. {first} Hosts are network namespaces of one machine, each with a "
        "real sshd; ssh and the ring go over two networks of their own. No Mac was at hand.",
        "## nko-nano over ssh, from bare hosts to the manifest",
        "`./doit manifest:over` with the recipe `nko-nano`, one rank a host: sync, preflight, 300 steps, evaluation of "
        "259 rows, report. Beside it the same by local ranks. All hosts share the machine's cores, so more hosts bring "
        "no speed here. Compared: " + ", ".join(f"`{name}`" for name in SAME) + ".",
        "| hosts | over ssh | local ranks | files that differ | slowest round trip | gated CER |\n"
        "|---|---|---|---|---|---|\n"
        + "\n".join(
            f"| {each.hosts} | {each.seconds:.0f} s | {each.local_s:.0f} s | {', '.join(each.different) or 'none'} | "
            f"{each.round_trip_ms:.2f} ms | {each.gated_cer:.4f} |"
            for each in runs
        ),
        "## Two hosts against one, each on a core of its own",
        f"{steps} steps of nko-nano, 8 rows a rank and step, so two hosts take twice the rows; target tokens a second, "
        f"medians of {turns} turns, first lines and validations apart. The link's rate is set by `tc tbf`.",
        "| training link | 1 host | 2 hosts | efficiency |\n|---|---|---|---|\n"
        + "\n".join(f"| {name} | {a:.0f} | {b:.0f} | {b / (2 * a):.2f} |" for name, (a, b) in rates.items()),
    ]
    return "\n\n".join(text) + "\n"


def main() -> None:
    """Measure everything and show the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=160)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--hosts", type=int, nargs="*", default=[2, 4])
    parser.add_argument("--reports", type=Path, help="folder for the Markdown reports of the whole runs")
    parser.add_argument("--write", action="store_true")
    flags = parser.parse_args()
    if reason := missing():
        raise SystemExit(reason)
    load = os.getloadavg()[0]
    rates = scaling(flags.steps, flags.turns) if flags.turns else {}
    runs = [whole(hosts) for hosts in flags.hosts]
    for each in runs if flags.reports else []:
        (flags.reports / f"report-{each.hosts}-hosts.md").write_text(each.report, encoding="utf-8")
    text = page(runs, rates, flags.steps, flags.turns, load)
    print(text)
    if flags.write:
        (PROJECT / "benchmarks" / "CLUSTER.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
