"""Measures whole runs of nko-nano over ssh on two and four hosts, and the speed of two hosts against one. Needs root.

.venv/bin/python benchmarks/cluster.py [--steps 160] [--turns 3] [--hosts 2 4] [--write] [--tiny]

Hosts are network namespaces with a real sshd each (tests/system/cluster/lab.py); they have an environment and no other
files. --write: write the tables to benchmarks/CLUSTER.md. --tiny: one run on one host with the recipe smoke, to check
that this program works. The scaling needs an idle machine with two cores: each host gets one.
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
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import toml

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))

from tests.helpers.project_copy import Copy, copy_sources  # noqa: E402
from tests.system.cluster.lab import VENV, Lab, lab, missing  # noqa: E402
from tests.system.cluster.machine import LINK, PROJECT_FOLDER, Machine  # noqa: E402

SAME = ("adapter/adapters.safetensors", "adapter/done.json", "predictions.jsonl", "decisions.jsonl", "eval.json")
"""Files of a run that must not depend on where its ranks ran."""
LINKS = {"as it is": "", "1 Gbit/s": "1gbit", "100 Mbit/s": "100mbit"}
WARM = 3
"""First lines of a training, ten steps each, that are not counted: they fill the memory pools."""


@dataclass(frozen=True)
class Whole:
    """A complete run. seconds: over ssh; local_s: with local ranks; different: files whose bytes differ."""

    hosts: int
    seconds: float
    local_s: float
    different: list[str]
    round_trip_ms: float
    gated_cer: float
    report: str


def furnish(it: Lab, recipe: str) -> None:
    """Add the recipe `over` to head, and leave only an environment on the hosts. recipe: text for the cluster `lab`."""
    head = it.head.project
    hosts = "".join(f'[[clusters.lab.hosts]]\nssh = "{each.name}"\nips = ["{each.address}"]\n' for each in it.hosts)
    with (head / "thunder.toml").open("a") as file:
        file.write(f'\n[clusters.lab]\nfolder = "{PROJECT_FOLDER}"\n{hosts}')
    (head / "recipes/over.toml").write_text(recipe)
    for host in it.hosts:
        shutil.rmtree(host.project)
        host.project.mkdir()
        (host.project / ".venv").symlink_to(VENV)


def recipe(name: str, cluster: str, **train: object) -> str:
    """A recipe of the project on another cluster, with some [train] keys changed."""
    table = tomllib.loads((PROJECT / f"recipes/{name}.toml").read_text(encoding="utf-8"))
    return str(toml.dumps(table | {"cluster": cluster, "train": table["train"] | train}))


def whole(hosts: int, name: str = "nko-nano") -> Whole:
    """A recipe over ssh from bare hosts to the manifest, and the same with local ranks."""
    with tempfile.TemporaryDirectory() as folder, lab(hosts) as it:
        here = copy_sources(Path(folder))
        with (here.path / "thunder.toml").open("a") as file:
            file.write(f'\n[clusters.here]\nbackend = "ring"\nranks = {hosts}\n')
        (here.path / "recipes/over.toml").write_text(recipe(name, "here"))
        local_s = _timed(here)
        furnish(it, recipe(name, "lab"))
        began = time.perf_counter()
        done = it.head.run([".venv/bin/python", "-m", "doit", "manifest:over"], timeout=1800)
        seconds = time.perf_counter() - began
        must(done.returncode, done.stdout + done.stderr)
        over_ssh, local = (path / "runs/over" for path in (it.head.project, here.path))
        links = json.loads((over_ssh / "preflight.json").read_text())["links"]
        conditions = json.loads((over_ssh / "eval.json").read_text())["conditions"]
        different = [name for name in SAME if (over_ssh / name).read_bytes() != (local / name).read_bytes()]
        print(f"{hosts} hosts: {seconds:.0f} s over ssh, {local_s:.0f} s locally; differ: {different}", flush=True)
        return Whole(
            hosts,
            seconds,
            local_s,
            different,
            max((link["latency_ms"] for link in links if link["is_needed"]), default=0.0),
            next(e["cer"] for e in conditions if (e["condition"], e["partition"]) == ("adapter_gated", "all")),
            (over_ssh / "report.md").read_text(),
        )


def must(status: int, output: str) -> None:
    """Stop the benchmark with the last lines of output if a command failed."""
    if status:
        raise SystemExit("\n".join(output.splitlines()[-20:]))


def _timed(here: Copy) -> float:
    began = time.perf_counter()
    done = here.doit("manifest:over")
    must(done.status, done.output)
    return time.perf_counter() - began


def scaling(steps: int, turns: int) -> dict[str, tuple[float, float]]:
    """{link: (target tokens per second on one host, on two)}. Each host has its own core and the same rows per step."""
    rates: dict[str, list[list[float]]] = {name: [[], []] for name in LINKS}
    with lab(1) as one, lab(2) as two:
        for it in (one, two):
            furnish(it, recipe("nko-nano", "lab", num_iters=steps, log_every=10))
            for core, host in enumerate(it.hosts):
                for pid in host.pids():  # sshd's children inherit it
                    os.sched_setaffinity(pid, {core})
        for _ in range(turns):
            for name, rate in LINKS.items():
                for host in two.hosts:
                    limit(host, rate)
                for number, it in enumerate((one, two)):
                    rates[name][number].append(trained(it))
                    print(f"{name}: {number + 1} hosts: {rates[name][number][-1]:.0f} target tokens/s", flush=True)
    return {name: (statistics.median(a), statistics.median(b)) for name, (a, b) in rates.items()}


def limit(host: Machine, rate: str) -> None:
    """Limit the rate of a host's training link; "": no limit."""
    host.tc("qdisc", "replace", "dev", LINK, "root", "pfifo")
    if rate:
        host.tc(*f"qdisc replace dev {LINK} root tbf rate {rate} burst 256kb latency 50ms".split())


def trained(it: Lab) -> float:
    """Target tokens per second of a training on the hosts of a lab, without its first lines."""
    shutil.rmtree(it.head.project / "runs/over", ignore_errors=True)
    shutil.rmtree(it.head.project / ".thunder", ignore_errors=True)
    done = it.head.run([".venv/bin/python", "-m", "doit", "train:over"], timeout=1800)
    must(done.returncode, done.stdout + done.stderr)
    lines = (it.head.project / "runs/over/metrics.jsonl").read_text().splitlines()
    events = [each for each in map(json.loads, lines) if each["event"] == "train"][WARM:]
    # Each line has the tokens of its steps and their rate; validations between them are not counted.
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
        "real sshd; ssh and the ring use separate networks. No Mac was available.",
        "## nko-nano over ssh, from bare hosts to the manifest",
        "`./doit manifest:over` with the recipe `nko-nano`, one rank per host: sync, preflight, 300 steps, evaluation "
        "of 259 rows, report; and the same with local ranks. All hosts share the machine's cores, so more hosts are "
        "not faster here. Compared files: " + ", ".join(f"`{name}`" for name in SAME) + ".",
        "| hosts | over ssh | local ranks | files that differ | slowest round trip | gated CER |\n"
        "|---|---|---|---|---|---|\n"
        + "\n".join(
            f"| {each.hosts} | {each.seconds:.0f} s | {each.local_s:.0f} s | {', '.join(each.different) or 'none'} | "
            f"{each.round_trip_ms:.2f} ms | {each.gated_cer:.4f} |"
            for each in runs
        ),
        "## Two hosts against one, each on its own core",
        f"{steps} steps of nko-nano, 8 rows per rank and step, so two hosts take twice the rows; target tokens per "
        f"second, medians of {turns} turns, without first lines and validations. `tc tbf` limits the rate of the link.",
        "| training link | 1 host | 2 hosts | efficiency |\n|---|---|---|---|\n"
        + "\n".join(f"| {name} | {a:.0f} | {b:.0f} | {b / (2 * a):.2f} |" for name, (a, b) in rates.items()),
    ]
    return "\n\n".join(text) + "\n"


def main() -> None:
    """Measure, print, and write if --write is given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=160)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--hosts", type=int, nargs="*", default=[2, 4])
    parser.add_argument("--reports", type=Path, help="folder for the Markdown reports of the whole runs")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--tiny", action="store_true")
    flags = parser.parse_args()
    if reason := missing():
        raise SystemExit(reason)
    if flags.tiny:
        whole(1, "smoke")
        return
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
