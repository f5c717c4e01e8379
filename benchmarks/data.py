"""Measures the data stage on a million rows, the same job written with Hugging Face `datasets`, and a floor of Polars.

.venv/bin/python benchmarks/data.py [--rows 1000000] [--no-rival] [--write] [--tiny]

Each side runs alone on one core in its own process, ours and the floor also on two; times are wall seconds of the whole
process, memory is its peak resident set. --write: write the tables to benchmarks/DATA.md. --tiny: a thousand rows in a
temporary folder, without the rival and the floor, to check that this program works. All other files are below
.thunder/bench/data.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import data_sides as sides

PROJECT = Path(__file__).resolve().parent.parent
BENCH = PROJECT / ".thunder" / "bench" / "data"
LETTERS = "ߊߋߌߍߎߏߐߓߔߕߖߗߘߙߛߜߝߞߟߡߢߣߥߦ"
PARTITIONS = ("stable", "boundary", "uncertain", "recovery", "novelty")
THREADS = ("OMP_NUM_THREADS", "POLARS_MAX_THREADS")
OTHERS = ("ߞߏ", "ߦߋ")
"""Words that belong to another orthography, which the data stage would refuse."""
METHOD = (
    "Generated pairs of the row contract, fixed seed: 4 to 16 words, a tenth of the letters replaced, both files "
    "shuffled. One core unless said otherwise, one process per run, wall seconds of the whole process. Ours reads, "
    "joins, checks spelling, leaks and duplicates, splits, sorts and writes the splits, the manifest and the audit; "
    "the rival joins with a dict, maps, splits at random and writes. The floor is what the bare job costs in Polars, "
    "which joins, puts the texts together, splits, sorts and writes in compiled code, and checks nothing."
)
"""What was measured, for the page."""
SEED = 20261122
SECONDS, BYTES, TIMES = {1: 45.0, 2: 30.0}, 1 << 30, 3.0
"""Targets at a million rows: {cores: wall seconds}, peak memory, the rival's seconds divided by ours on one core."""


@dataclass(frozen=True)
class Cost:
    """One run. digests: sha256 of our splits; empty for the rival."""

    seconds: float
    peak_bytes: int
    rows: int
    digests: dict[str, str]


def write_pairs(folder: Path, rows: int) -> None:
    """Write predictions and their references, each in its own random order; the same number gives the same files."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    rng = random.Random(SEED)  # noqa: S311  (rows, not secrecy)
    vocabulary = {"".join(rng.choices(LETTERS, k=rng.randint(2, 6))) for _ in range(5000)}
    words = sorted(vocabulary - set(OTHERS))
    orders = [list(range(rows)), list(range(rows))]
    for order in orders:
        rng.shuffle(order)
    texts = [" ".join(rng.choices(words, k=rng.randint(4, 16))) for _ in range(rows)]
    with open(folder / "references.jsonl", "w", encoding="utf-8") as file:
        for row in orders[0]:
            reference = {"audio_path": _audio(row), "feat_id": f"f{row:07d}", "reference_text": texts[row]}
            file.write(json.dumps(reference, ensure_ascii=False) + "\n")
    with open(folder / "predictions.jsonl", "w", encoding="utf-8") as file:
        for row in orders[1]:
            file.write(json.dumps(_prediction(row, texts[row], rng), ensure_ascii=False) + "\n")


def _audio(row: int) -> str:
    return f"corpus/audio/{row:07d}.wav"


def _prediction(row: int, text: str, rng: random.Random) -> dict[str, object]:
    """A row of the row contract; a tenth of its letters is replaced."""
    heard = "".join(rng.choice(LETTERS) if rng.random() < 0.1 else letter for letter in text)
    return {
        "feat_id": f"f{row:07d}",
        "audio_path": _audio(row),
        "segment_id": f"s{row:07d}",
        "split": "test",
        "script": "nko",
        "mode": "trajectory",
        "asr_text": heard,
        "ctc_confidence": round(rng.random(), 4),
        "cer_edits": 3,
        "trajectory_scalars": {"velocity": round(rng.random(), 4), "jerk": round(rng.random(), 4)},
        "partition": rng.choice(PARTITIONS),
    }


def shuffled(folder: Path, target: Path) -> None:
    """Write the same rows with shuffled lines."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for name in ("references.jsonl", "predictions.jsonl"):
        lines = (folder / name).read_bytes().splitlines(keepends=True)
        random.Random(SEED + 1).shuffle(lines)  # noqa: S311  (rows, not secrecy)
        (target / name).write_bytes(b"".join(lines))


def measure(argv: list[str], cores: int = 1) -> Cost:
    """Run a side on so many cores: its wall time, its peak memory, and the JSON in its last line."""
    usable = sorted(os.sched_getaffinity(0))[:cores]
    process = subprocess.Popen(
        argv,
        stdout=subprocess.PIPE,
        text=True,
        cwd=PROJECT,
        preexec_fn=lambda: os.sched_setaffinity(0, usable),
        env={**os.environ, **dict.fromkeys(THREADS, str(cores)), "HF_HUB_OFFLINE": "1", "PYTHONHASHSEED": "random"},
    )
    start = time.perf_counter()
    output = process.stdout.read() if process.stdout else ""
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    if status:
        raise SystemExit(f"{argv} failed:\n{output}")
    result = json.loads(output.splitlines()[-1])
    return Cost(seconds, usage.ru_maxrss * 1024, result["rows"], result["digests"])


def main() -> None:
    """Measure, print, and write if --write is given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--no-rival", action="store_true")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--tiny", action="store_true")
    flags = parser.parse_args()
    if flags.tiny:
        with tempfile.TemporaryDirectory() as folder:
            costs, _, is_same = measure_ours(Path(folder), [1000])
            print(f"{costs[1000].rows} rows, same bytes from shuffled lines: {is_same}")
        return
    sizes = sorted({flags.rows // 100, flags.rows // 10, flags.rows} - {0})
    ours, middle, is_same = measure_ours(BENCH, sizes)
    pairs = BENCH / f"in-{flags.rows}"
    others = {"ours on two cores": measure(sides.ours(pairs, BENCH / "out"), 2)}
    if not flags.no_rival:
        others["Hugging Face datasets"] = measure(sides.theirs(BENCH, pairs, BENCH / "out-rival"))
        others["Polars, join, split and write alone"] = measure(sides.floor(BENCH, pairs, BENCH / "out-floor"))
        others["the same on two cores"] = measure(sides.floor(BENCH, pairs, BENCH / "out-floor"), 2)
    text = page(ours, is_same, middle, others)
    print(text)
    if flags.write:
        (PROJECT / "benchmarks" / "DATA.md").write_text(text, encoding="utf-8")


def measure_ours(home: Path, sizes: list[int]) -> tuple[dict[int, Cost], int, bool]:
    """(rows -> cost, the number of rows that was also shuffled, whether its splits are then the same bytes)."""
    costs: dict[int, Cost] = {}
    for rows in sizes:
        write_pairs(home / f"in-{rows}", rows)
        costs[rows] = measure(sides.ours(home / f"in-{rows}", home / "out"))
        print(f"{rows:>9,} rows: {costs[rows].seconds:.1f} s, {costs[rows].peak_bytes / 2**20:.0f} MiB", flush=True)
    middle = sizes[len(sizes) // 2]
    shuffled(home / f"in-{middle}", home / "in-shuffled")
    is_same = measure(sides.ours(home / "in-shuffled", home / "out")).digests == costs[middle].digests
    return costs, middle, is_same


def page(ours: dict[int, Cost], is_same: bool, middle: int, others: dict[str, Cost]) -> str:
    """The tables as Markdown. others: what else was measured with the largest number of rows."""
    rows = max(ours)
    whole, two = ours[rows], others["ours on two cores"]
    rival = others.get("Hugging Face datasets")
    per_row = {size: cost.seconds / size * 1e6 for size, cost in ours.items()}
    lines = [
        "# What the data stage costs",
        "",
        f"Written by `benchmarks/data.py --write`: {sides.machine()}. {METHOD}",
        "",
        "| target | required | measured | |",
        "|---|---|---|---|",
        _verdict(
            f"{rows:,} rows", f"under {SECONDS[1]:.0f} s", f"{whole.seconds:.1f} s", whole.seconds < SECONDS[1]
        ),
        _verdict(
            f"{rows:,} rows, two cores", f"under {SECONDS[2]:.0f} s", f"{two.seconds:.1f} s", two.seconds < SECONDS[2]
        ),
        _verdict(
            "peak memory", f"under {BYTES / 2**20:.0f} MiB", f"{whole.peak_bytes / 2**20:.0f} MiB",
            whole.peak_bytes < BYTES,
        ),
        _verdict(f"same bytes from shuffled lines ({middle:,} rows)", "yes", "yes" if is_same else "no", is_same),
    ]  # fmt: skip
    if rival:
        times = rival.seconds / whole.seconds
        lines.append(_verdict("datasets / ours, seconds", f"{TIMES} or more", f"{times:.1f}", times >= TIMES))
    lines += ["", "| rows | seconds | microseconds per row | peak MiB |", "|---|---|---|---|"]
    lines += [
        f"| {size:,} | {cost.seconds:.1f} | {per_row[size]:.0f} | {cost.peak_bytes / 2**20:.0f} |"
        for size, cost in ours.items()
    ]
    lines += [
        f"| {rows:,}, {name} | {cost.seconds:.1f} | {cost.seconds / rows * 1e6:.0f} | {cost.peak_bytes / 2**20:.0f} |"
        for name, cost in others.items()
    ]
    return "\n".join(lines) + "\n"


def _verdict(what: str, asked: str, value: str, is_met: bool) -> str:
    return f"| {what} | {asked} | {value} | {'met' if is_met else '**not met**'} |"


if __name__ == "__main__":
    main()
