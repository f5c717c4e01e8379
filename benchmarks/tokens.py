"""Rows per second from train.jsonl to tokens: without a cache, from the cache, and for two ranks that begin together.

.venv/bin/python benchmarks/tokens.py MODEL ROWS.jsonl [--template-args '{"enable_thinking": false}'] [--code FOLDER]

MODEL: a folder with tokenizer.json and tokenizer_config.json. --code: a checkout of this project, as a former one,
whose code is measured instead. Seconds are processor time of all threads, which other programs on a machine change
little. Results: TOKENS.md.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
ENVIRONMENT = {"TRANSFORMERS_VERBOSITY": "error"}


def measure(model: Path, rows: Path, arguments: str, cache: str) -> None:
    """Tokenise the rows in this process and print {"rows", "seconds"}."""
    from mlx_lm.utils import load_tokenizer

    from thunder_train.worker.batching import tokens

    tokenizer = load_tokenizer(model, {"trust_remote_code": False})
    try:
        from thunder_train.worker.chat import Chat

        how = Chat(tokenizer, arguments=json.loads(arguments))
    except ImportError:  # a former version takes the tokenizer itself
        how = tokenizer
    start = time.process_time()
    read = tokens.read_all(rows, how, cache=Path(cache) if cache else None)
    print(json.dumps({"rows": len(read), "seconds": time.process_time() - start}))


def processes(flags: argparse.Namespace, cache: str, count: int) -> list[float]:
    """Processor seconds of each of some processes that tokenise the same rows at once."""
    command = [sys.executable, __file__, flags.model, flags.rows, "--template-args", flags.template_args]
    environment = {**os.environ, **ENVIRONMENT, "PYTHONPATH": str(flags.code)}
    started = [
        subprocess.Popen([*command, "--measure", "--cache", cache], env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(count)
    ]
    results = [json.loads(process.communicate()[0].splitlines()[-1]) for process in started]
    return [result["seconds"] for result in results]


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
            seconds = processes(flags, cache, count)
            print(f"{case}: {sum(seconds):.2f} s of {count} processes, {rows * count / sum(seconds):,.0f} rows/s")


if __name__ == "__main__":
    main()
