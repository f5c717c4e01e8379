"""Rows per second from train.jsonl to tokens, and the memory that they take: without a cache, from the cache, and for
two ranks that begin together.

.venv/bin/python benchmarks/tokens.py MODEL ROWS.jsonl [--template-args '{"enable_thinking": false}'] [--code FOLDER]

MODEL: a folder with tokenizer.json and tokenizer_config.json. --code: a checkout of this project, as a former one,
whose code is measured instead. Seconds are processor time of all threads, which other programs on a machine change
little. Results: TOKENS.md.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
ENVIRONMENT = {"TRANSFORMERS_VERBOSITY": "error"}


def measure(model: Path, rows: Path, arguments: str, cache: str) -> None:
    """Tokenise the rows in this process and print {"rows", "seconds", "megabytes" more at the end, "most"}."""
    from mlx_lm.utils import load_tokenizer

    from thunder_train.worker.batching import tokens

    tokenizer = load_tokenizer(model, {"trust_remote_code": False})
    try:
        from thunder_train.worker.chat import Chat

        how = Chat(tokenizer, arguments=json.loads(arguments))
    except ImportError:  # a former version takes the tokenizer itself
        how = tokenizer
    start, before = time.process_time(), resident()
    read = tokens.read_all(rows, how, cache=Path(cache) if cache else None)
    seconds, most = time.process_time() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    more = {"megabytes": resident() - before, "most": most - before}
    print(json.dumps({"rows": len(read), "seconds": seconds, **more}))


def resident() -> float:
    """Megabytes of this process that are in memory, on Linux."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def processes(flags: argparse.Namespace, cache: str, count: int) -> list[dict[str, float]]:
    """What each of some processes measured that tokenise the same rows at once."""
    command = [sys.executable, __file__, flags.model, flags.rows, "--template-args", flags.template_args]
    environment = {**os.environ, **ENVIRONMENT, "PYTHONPATH": str(flags.code)}
    started = [
        subprocess.Popen([*command, "--measure", "--cache", cache], env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(count)
    ]
    return [json.loads(process.communicate()[0].splitlines()[-1]) for process in started]


def main() -> None:
    """Print a line for each case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("rows")
    parser.add_argument("--template-args", default="{}")
    parser.add_argument("--code", default=PROJECT, type=Path)
    parser.add_argument("--cache", default="", help=argparse.SUPPRESS)
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.measure:
        measure(Path(flags.model), Path(flags.rows), flags.template_args, flags.cache)
        return
    rows = len(Path(flags.rows).read_bytes().splitlines())
    with tempfile.TemporaryDirectory() as folder:
        for case, cache, count in (
            ("without a cache", "", 1),
            ("two ranks, new cache", f"{folder}/two", 2),
            ("from the cache", f"{folder}/two", 1),
        ):
            results = processes(flags, cache, count)
            seconds = sum(each["seconds"] for each in results)
            kept, most = (max(each[name] for each in results) for name in ("megabytes", "most"))
            speed = f"{seconds:.2f} s of {count} processes, {rows * count / seconds:,.0f} rows/s"
            print(f"{case}: {speed}; a process keeps {kept:.0f} MB, {most:.0f} MB at most")


if __name__ == "__main__":
    main()
