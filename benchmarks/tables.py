"""The figures as Markdown, beside the targets that they have to reach."""

import os
import platform
from collections.abc import Iterator
from pathlib import Path

from hashing import Big
from measure import Cost

Found = dict[tuple[str, int, str], Cost]
"""(tool, recipes, what) -> median cost."""
MARK = "<!-- Everything below is written by benchmarks/build.py --write. -->\n"
OURS, PLAIN = "Thunder Train", "plain doit"
NO_OP, CHANGED, FIRST = "no-op", "one changed", "first build"


def markdown(found: Found, big: Big | None, versions: list[str], arguments: list[str]) -> str:
    """Facts, one table per scenario, and the targets."""
    sizes = sorted({size for _, size, _ in found})
    lines = [f"Made by `{' '.join(['.venv/bin/python benchmarks/build.py', *arguments])}` on {machine()}."]
    lines += [f"Tools: {'; '.join(versions)}.", ""]
    for what in (NO_OP, CHANGED, FIRST):
        lines += [f"## {what.capitalize()}", "", *_table(found, sizes, what), ""]
    if big:
        lines += ["## A 2 GB input, read by 8 tasks", "", *big.lines(), ""]
    lines += ["## Targets", "", "| target | measured | |", "|---|---|---|"]
    lines += [f"| {name} | {value} | {'met' if met else '**not met**'} |" for name, value, met in targets(found, big)]
    return "\n".join(lines) + "\n"


def write(path: Path, text: str) -> None:
    """Put the tables below the mark of a README, whose upper part is written by hand."""
    head = path.read_text(encoding="utf-8").partition(MARK)[0]
    path.write_text(f"{head}{MARK}\n{text}", encoding="utf-8")


def machine() -> str:
    """What the figures depend on, without the machine's name."""
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


def targets(found: Found, big: Big | None) -> Iterator[tuple[str, str, bool]]:
    """(target, what was measured, whether it is met)."""
    sizes = sorted({size for _, size, _ in found})
    for size in sizes:
        ours, plain = (found[tool, size, NO_OP] for tool in (OURS, PLAIN))
        wall, cpu = ours.wall / plain.wall, ours.cpu / plain.cpu
        yield (
            f"no-op of {size} within 1.5 times plain doit",
            f"{wall:.2f} (wall), {cpu:.2f} (CPU)",
            max(wall, cpu) <= 1.5,
        )
    for size, limit in ((50, 0.5), (500, 2.0)):
        if size in sizes:
            cpu = found[OURS, size, NO_OP].cpu
            yield f"no-op of {size} within {limit} s of CPU", f"{cpu:.2f} s", cpu <= limit
    if 500 in sizes:
        wall = found[OURS, 500, CHANGED].wall
        yield "one changed of 500 in 2.5 s and its own work", f"{wall:.2f} s with its work", wall <= 2.5
    for tool in ("Snakemake", "DVC"):
        for size in sizes:
            if (tool, size, NO_OP) in found:
                yield (f"at {size} at least 3 times faster than {tool}", *_faster(found, tool, size))
    if big:
        yield from big.targets()


def _faster(found: Found, tool: str, size: int) -> tuple[str, bool]:
    """How many times a tool's cost is ours, in both scenarios; the least of all counts."""
    ratios = {what: (found[tool, size, what], found[OURS, size, what]) for what in (NO_OP, CHANGED)}
    least = {what: min(its.wall / ours.wall, its.cpu / ours.cpu) for what, (its, ours) in ratios.items()}
    return ", ".join(f"{ratio:.1f} ({what})" for what, ratio in least.items()), min(least.values()) >= 3


def _table(found: Found, sizes: list[int], what: str) -> list[str]:
    """Wall seconds, CPU seconds in brackets; then both as multiples of plain doit's."""
    tools = list(dict.fromkeys(tool for tool, _, _ in found))
    heads = [f"N = {size} | × plain doit" for size in sizes]
    lines = [f"| | {' | '.join(heads)} |", "|---|" + "---|" * (2 * len(sizes))]
    for tool in tools:
        cells = []
        for size in sizes:
            cost, plain = found.get((tool, size, what)), found[PLAIN, size, what]
            cells.append(
                f"{cost.wall:.3f} s ({cost.cpu:.3f}) | {cost.wall / plain.wall:.2f}, {cost.cpu / plain.cpu:.2f}"
                if cost
                else "left out | "
            )
        lines.append(f"| {tool} | {' | '.join(cells)} |")
    return lines
