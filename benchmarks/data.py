"""What the data stage costs on a million rows, beside the same job written with Hugging Face `datasets`.

.venv/bin/python benchmarks/data.py [--rows 1000000] [--no-rival] [--write]

Each side runs alone, on one core, in a process of its own; times are wall seconds of the whole process, memory is its
peak resident set. --write: put the tables into benchmarks/DATA.md. All files lie below .thunder/bench/data.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import data_sides as sides

PROJECT = Path(__file__).resolve().parent.parent
BENCH = PROJECT / ".thunder" / "bench" / "data"
LETTERS = "ߊߋߌߍߎߏߐߓߔߕߖߗߘߙߛߜߝߞߟߡߢߣߥߦ"
PARTITIONS = ("stable", "boundary", "uncertain", "recovery", "novelty")
OTHERS = ("ߞߏ", "ߦߋ")
"""Words that would tell of another orthography."""
SEED = 20261122
SECONDS, BYTES, TIMES = 60.0, 1 << 30, 3.0
"""Asked for at a million rows: wall seconds, peak memory, and how much faster than the rival."""


@dataclass(frozen=True)
class Cost:
    """One run. digests: sha256 of the splits, where the side writes those that the project does."""

    seconds: float
    peak_bytes: int
    rows: int
    digests: dict[str, str]


def write_pairs(folder: Path, rows: int) -> None:
    """rows predictions and their references, in shuffled order on both sides; the same for the same number."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    chance = random.Random(SEED)  # noqa: S311  (rows, not secrecy)
    made = {"".join(chance.choices(LETTERS, k=chance.randint(2, 6))) for _ in range(5000)}
    words = sorted(made - set(OTHERS))
    orders = [list(range(rows)), list(range(rows))]
    for order in orders:
        chance.shuffle(order)
    texts = [" ".join(chance.choices(words, k=chance.randint(4, 16))) for _ in range(rows)]
    with open(folder / "references.jsonl", "w", encoding="utf-8") as file:
        for row in orders[0]:
            reference = {"audio_path": _audio(row), "feat_id": f"f{row:07d}", "reference_text": texts[row]}
            file.write(json.dumps(reference, ensure_ascii=False) + "\n")
    with open(folder / "predictions.jsonl", "w", encoding="utf-8") as file:
        for row in orders[1]:
            file.write(json.dumps(_prediction(row, texts[row], chance), ensure_ascii=False) + "\n")


def _audio(row: int) -> str:
    return f"corpus/audio/{row:07d}.wav"


def _prediction(row: int, text: str, chance: random.Random) -> dict[str, object]:
    """A row of the row contract, its text a tenth wrong."""
    heard = "".join(chance.choice(LETTERS) if chance.random() < 0.1 else letter for letter in text)
    return {
        "feat_id": f"f{row:07d}",
        "audio_path": _audio(row),
        "segment_id": f"s{row:07d}",
        "split": "test",
        "script": "nko",
        "mode": "trajectory",
        "asr_text": heard,
        "ctc_confidence": round(chance.random(), 4),
        "cer_edits": 3,
        "trajectory_scalars": {"velocity": round(chance.random(), 4), "jerk": round(chance.random(), 4)},
        "partition": chance.choice(PARTITIONS),
    }


def shuffled(folder: Path, target: Path) -> None:
    """The same rows in another order of lines."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for name in ("references.jsonl", "predictions.jsonl"):
        lines = (folder / name).read_bytes().splitlines(keepends=True)
        random.Random(SEED + 1).shuffle(lines)  # noqa: S311  (rows, not secrecy)
        (target / name).write_bytes(b"".join(lines))


def measure(argv: list[str]) -> Cost:
    """Run a side on one core and read what it says in its last line, with its wall time and peak memory."""
    core = min(os.sched_getaffinity(0))
    process = subprocess.Popen(
        argv,
        stdout=subprocess.PIPE,
        text=True,
        cwd=PROJECT,
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONHASHSEED": "random"},
    )
    start = time.perf_counter()
    output = process.stdout.read() if process.stdout else ""
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    if status:
        raise SystemExit(f"{argv} failed:\n{output}")
    told = json.loads(output.splitlines()[-1])
    return Cost(seconds, usage.ru_maxrss * 1024, told["rows"], told["digests"])


def main() -> None:
    """Measure, show, perhaps write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--no-rival", action="store_true")
    parser.add_argument("--write", action="store_true")
    flags = parser.parse_args()
    sizes = sorted({flags.rows // 100, flags.rows // 10, flags.rows} - {0})
    ours: dict[int, Cost] = {}
    for rows in sizes:
        write_pairs(BENCH / f"in-{rows}", rows)
        ours[rows] = measure(sides.ours(BENCH / f"in-{rows}", BENCH / "out"))
        print(f"{rows:>9,} rows: {ours[rows].seconds:.1f} s, {ours[rows].peak_bytes / 2**20:.0f} MiB", flush=True)
    middle = sizes[len(sizes) // 2]
    shuffled(BENCH / f"in-{middle}", BENCH / "in-shuffled")
    is_same = measure(sides.ours(BENCH / "in-shuffled", BENCH / "out")).digests == ours[middle].digests
    rival = None if flags.no_rival else measure(sides.theirs(BENCH, BENCH / f"in-{flags.rows}", BENCH / "out-rival"))
    text = page(ours, is_same, middle, rival)
    print(text)
    if flags.write:
        (PROJECT / "benchmarks" / "DATA.md").write_text(text, encoding="utf-8")


def page(ours: dict[int, Cost], is_same: bool, middle: int, rival: Cost | None) -> str:
    """The tables."""
    rows = max(ours)
    whole = ours[rows]
    per_row = {size: cost.seconds / size * 1e6 for size, cost in ours.items()}
    lines = [
        "# What the data stage costs",
        "",
        f"Written by `benchmarks/data.py --write`: {sides.machine()}. Pairs of the row contract, generated and seeded: "
        "4 to 16 words, a tenth of the letters wrong, both files shuffled. One core, a process for each run, wall "
        "seconds of the whole process. Ours reads, joins, checks spelling, leaks and duplicates, splits, sorts and "
        "writes the splits, the manifest and the audit; the rival joins by a dict, maps, splits at random and writes.",
        "",
        "| what | asked | measured | |",
        "|---|---|---|---|",
        _verdict(f"{rows:,} rows", f"under {SECONDS:.0f} s", f"{whole.seconds:.1f} s", whole.seconds < SECONDS),
        _verdict(
            "peak memory", f"under {BYTES / 2**20:.0f} MiB", f"{whole.peak_bytes / 2**20:.0f} MiB",
            whole.peak_bytes < BYTES,
        ),
        _verdict(f"same bytes from shuffled lines ({middle:,} rows)", "yes", "yes" if is_same else "no", is_same),
    ]  # fmt: skip
    if rival:
        times = rival.seconds / whole.seconds
        lines.append(_verdict("datasets / ours, seconds", f"{TIMES} or more", f"{times:.1f}", times >= TIMES))
    lines += ["", "| rows | seconds | microseconds a row | peak MiB |", "|---|---|---|---|"]
    lines += [
        f"| {size:,} | {cost.seconds:.1f} | {per_row[size]:.0f} | {cost.peak_bytes / 2**20:.0f} |"
        for size, cost in ours.items()
    ]
    if rival:
        name = f"{rows:,}, Hugging Face datasets"
        each = rival.seconds / rows * 1e6
        lines.append(f"| {name} | {rival.seconds:.1f} | {each:.0f} | {rival.peak_bytes / 2**20:.0f} |")
    return "\n".join(lines) + "\n"


def _verdict(what: str, asked: str, value: str, is_met: bool) -> str:
    return f"| {what} | {asked} | {value} | {'met' if is_met else '**not met**'} |"


if __name__ == "__main__":
    main()
