"""A nano base, a few rows and a two-rank hostfile, made once per session."""

import contextlib
import importlib
import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.project_copy import PROJECT

TEXTS = ["ߊߋߌ ߍߎ", "ߓߊ ߓߋ ߓߌ", "ߞߊ", "ߞߋ ߟߌ ߡߊ ߣߋ", "ߛߊ ߛߋ", "ߕߊ ߕߋ ߕߌ ߕߍ", "ߘߊ", "ߝߊ ߝߋ ߝߌ"]


def row(number: int, text: str, **more: object) -> dict[str, Any]:
    """A data row whose hypothesis lacks its first letter."""
    messages = [
        {"role": "system", "content": "Correct."},
        {"role": "user", "content": text[1:]},
        {"role": "assistant", "content": text},
    ]
    canonical = {"partition": "stable", "asr_text": text[1:], "reference_text": text}
    return {"id": f"row-{number}", "messages": messages, **canonical, **more}


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Write rows as JSONL."""
    path.write_text("".join(json.dumps(each, ensure_ascii=False) + "\n" for each in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with nano/, train.jsonl, valid.jsonl, test.jsonl and hosts.json (two local ring ranks)."""
    from thunder_train.worker import nano

    place = tmp_path_factory.mktemp("worker")
    nano.write(place / "nano", nano.Shape(layers=2, width=32, heads=2, kv_heads=1, hidden=48), seed=0)
    write_rows(place / "train.jsonl", [row(i, text) for i, text in enumerate(TEXTS)])
    write_rows(place / "valid.jsonl", [row(i, text) for i, text in enumerate(TEXTS[:3])])
    write_rows(place / "test.jsonl", [row(i, text) for i, text in enumerate(TEXTS[3:6])])
    host = {"ssh": "127.0.0.1", "ips": ["127.0.0.1"], "rdma": []}
    (place / "hosts.json").write_text(json.dumps({"backend": "ring", "envs": [], "hosts": [host, host]}))
    return place


@pytest.fixture(scope="session")
def tokenizer(folder: Path) -> Any:
    """The nano tokenizer as mlx-lm wraps it."""
    from mlx_lm.utils import load_tokenizer

    return load_tokenizer(folder / "nano", eos_token_ids=[5])


@pytest.fixture(scope="session")
def nano_chat(tokenizer: Any) -> Any:
    """The nano tokenizer with its own chat template."""
    from thunder_train.worker.chat import Chat

    return Chat(tokenizer)


def rows_in(batch: Any) -> list[tuple[int, ...]]:
    """The tokens of each row of a batch, padding (token 0) left out."""
    tokens = batch.tokens.tolist()
    segments = [[int(token > 0) for token in line] for line in tokens]
    if batch.segments is not None:
        segments = batch.segments.tolist()
    return [
        tuple(token for token, number in zip(*line, strict=True) if number == segment)
        for line in zip(tokens, segments, strict=True)
        for segment in range(1, max(line[1]) + 1)
    ]


def flags(adapter: Path, **changed: object) -> list[str]:
    """The worker's flags for a short training, some of them changed."""
    chosen = {
        "model": "nano",
        "train_data": "train.jsonl",
        "valid_data": "valid.jsonl",
        "num_iters": 4,
        "batch_size": 1,
        "num_layers": 2,
        "lora_rank": 4,
        "learning_rate": 1e-3,
        "log_every": 1,
        "eval_every": 2,
        "save_every": 2,
        "adapter_path": adapter,
    }
    return [part for name, value in (chosen | changed).items() for part in (f"--{name.replace('_', '-')}", str(value))]


def inline(module: str, arguments: list[str], folder: Path) -> "subprocess.CompletedProcess[str]":
    """Run a worker's program in folder as its command line does, but in this process, which has imported mlx-lm."""
    from thunder_train.worker.bootstrap import enter

    name = f"{module}.__main__" if module == "thunder_train.worker" else module
    out, err, status = io.StringIO(), io.StringIO(), 0
    argv, handler = sys.argv, signal.getsignal(signal.SIGTERM)
    sys.argv = [name, *arguments]
    try:
        with contextlib.chdir(folder), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            enter(importlib.import_module(name).main)
    except SystemExit as end:
        status = int(end.code or 0)
    finally:
        sys.argv = argv
        signal.signal(signal.SIGTERM, handler)
    return subprocess.CompletedProcess([name, *arguments], status, out.getvalue(), err.getvalue())


def python(module: str, arguments: list[str], folder: Path, **env: str) -> "subprocess.CompletedProcess[str]":
    """Run a module of the project in folder."""
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(PROJECT), **env},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture(scope="session")
def adapter(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter that was trained for 4 steps."""
    place = tmp_path_factory.mktemp("generate") / "adapter"
    assert 0 == inline("thunder_train.worker", flags(place), folder).returncode
    return place
