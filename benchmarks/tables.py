"""The build benchmark's results as Markdown, and its targets."""

import os
import platform
from collections.abc import Iterator
from pathlib import Path

from hashing import Big
from measure import Cost

Costs = dict[tuple[str, int, str], Cost]
"""(tool, number of recipes, scenario) -> median cost."""
MARK = "<!-- Everything below is written by benchmarks/build.py --write. -->\n"
OURS, PLAIN = "Thunder Train", "plain doit"
NO_OP, CHANGED, FIRST = "no-op", "one changed", "first build"


def markdown(costs: Costs, big: Big | None, versions: list[str], arguments: list[str], with_targets: bool) -> str:
    """The machine, one table per scenario, and the targets."""
    sizes = sorted({size for _, size, _ in costs})
    lines = [f"Written by `{' '.join(['.venv/bin/python benchmarks/build.py', *arguments])}` on {machine()}."]
    lines += [f"Tools: {'; '.join(versions)}.", ""]
    for scenario in (NO_OP, CHANGED, FIRST):
        lines += [f"## {scenario.capitalize()}", "", *_table(costs, sizes, scenario), ""]
    if big:
        lines += [f"## A {big.size / 1e9:.3g} GB input, read by 8 tasks", "", *big.lines(), ""]
    if with_targets:
        lines += ["## Targets", "", "| target | measured | |", "|---|---|---|"]
        verdicts = targets(costs, big)
        lines += [f"| {name} | {value} | {'met' if met else '**not met**'} |" for name, value, met in verdicts]
    return "\n".join(lines) + "\n"


def write(path: Path, text: str) -> None:
    """Replace the part of a README below the mark; the part above is written by hand."""
    head = path.read_text(encoding="utf-8").partition(MARK)[0]
    path.write_text(f"{head}{MARK}\n{text}", encoding="utf-8")


def machine() -> str:
    """The machine on which the figures depend, without its name."""
    cpu = platform.machine()
    if (info := Path("/proc/cpuinfo")).is_file():
        names = [
            line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        cpu = f"{names[0] if names else ''} {cpu}".strip()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    busy = f"load average {os.getloadavg()[2]:.1f} in the last 15 minutes"
    parts = [platform.system(), cpu, f"{os.cpu_count()} cores", f"{memory:.0f} GiB", busy]
    return ", ".join([*parts, f"Python {platform.python_version()}"])


def targets(costs: Costs, big: Big | None) -> Iterator[tuple[str, str, bool]]:
    """(target, measured value, whether it is met)."""
    sizes = sorted({size for _, size, _ in costs})
    for size in sizes:
        ours, plain = (costs[tool, size, NO_OP] for tool in (OURS, PLAIN))
        wall, cpu = ours.wall / plain.wall, ours.cpu / plain.cpu
        yield (
            f"no-op of {size} within 1.5 times plain doit",
            f"{wall:.2f} (wall), {cpu:.2f} (CPU)",
            max(wall, cpu) <= 1.5,
        )
    for size, limit in ((50, 0.5), (500, 2.0)):
        if size in sizes:
            cpu = costs[OURS, size, NO_OP].cpu
            yield f"no-op of {size} within {limit} s of CPU", f"{cpu:.2f} s", cpu <= limit
    if 500 in sizes:
        wall = costs[OURS, 500, CHANGED].wall
        yield "one changed of 500 within 2.5 s plus its own work", f"{wall:.2f} s with its work", wall <= 2.5
    for tool in ("Snakemake", "DVC"):
        for size in sizes:
            if (tool, size, NO_OP) in costs:
                yield (f"at {size} at least 3 times as fast as {tool}", *_faster(costs, tool, size))
    if big:
        yield from big.targets()


def _faster(costs: Costs, tool: str, size: int) -> tuple[str, bool]:
    """A tool's cost divided by ours in both scenarios, the smaller of wall and CPU; whether both are at least 3."""
    pairs = {scenario: (costs[tool, size, scenario], costs[OURS, size, scenario]) for scenario in (NO_OP, CHANGED)}
    ratios = {scenario: min(its.wall / ours.wall, its.cpu / ours.cpu) for scenario, (its, ours) in pairs.items()}
    return ", ".join(f"{ratio:.1f} ({scenario})" for scenario, ratio in ratios.items()), min(ratios.values()) >= 3


def _table(costs: Costs, sizes: list[int], scenario: str) -> list[str]:
    """Wall seconds, CPU seconds in brackets; then both as multiples of plain doit's."""
    tools = list(dict.fromkeys(tool for tool, _, _ in costs))
    heads = [f"N = {size} | × plain doit" for size in sizes]
    lines = [f"| | {' | '.join(heads)} |", "|---|" + "---|" * (2 * len(sizes))]
    for tool in tools:
        cells = []
        for size in sizes:
            cost, plain = costs.get((tool, size, scenario)), costs[PLAIN, size, scenario]
            cells.append(
                f"{cost.wall:.3f} s ({cost.cpu:.3f}) | {cost.wall / plain.wall:.2f}, {cost.cpu / plain.cpu:.2f}"
                if cost
                else "left out | "
            )
        lines.append(f"| {tool} | {' | '.join(cells)} |")
    return lines
