"""Base and adapter in one model, which answer a person."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file, save_file

from tests.helpers.project_copy import PROJECT
from tests.worker.conftest import TEXTS, inline
from tests.worker.test_correction import flags
from thunder_train.core import files

pytestmark = pytest.mark.ranks

HIDDEN = ("--rows", "--answers")


def given(adapter: Path, out: Path) -> list[str]:
    """The flags of an evaluation of rows one by one."""
    pairs = zip(*[iter(flags(adapter, out, batch_size=1))] * 2, strict=True)
    return [part for pair in pairs if pair[0] not in HIDDEN for part in pair]


def asked(folder: Path, arguments: list[str], requests: list[Any]) -> "subprocess.CompletedProcess[str]":
    """The program's answers to requests."""
    return subprocess.run(
        [sys.executable, "-m", "thunder_train.worker.converse", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        input="".join(json.dumps(each) + "\n" for each in requests),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture(scope="module")
def strong(adapter: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter under which no answer is that of the base."""
    place = tmp_path_factory.mktemp("strong") / "adapter"
    shutil.copytree(adapter, place)
    tensors = load_file(place / "adapters.safetensors")
    stronger = {name: each * (300 if name.endswith("lora_b") else 1) for name, each in tensors.items()}
    save_file(stronger, place / "adapters.safetensors")
    return place


def test_base_and_adapter_answer_in_turn_as_in_an_evaluation(folder: Path, strong: Path, tmp_path: Path) -> None:
    """
    The layers are exchanged for each question, so each must be the one of its condition.
    """
    arguments = given(strong, tmp_path)
    assert 0 == inline("thunder_train.worker.generate", arguments, folder).returncode
    predictions = files.read_jsonl(tmp_path / "p.jsonl")
    rows = files.read_jsonl(folder / "test.jsonl")
    order = [(name, number) for number in range(len(rows)) for name in ("adapter", "base", "adapter")]
    requests = [
        {"messages": rows[number]["messages"][:-1], "condition": name, "max_tokens": 0} for name, number in order
    ]
    done = asked(folder, arguments, [*requests, requests[0] | {"max_tokens": 1}])

    assert (0, "") == (done.returncode, done.stderr)
    ready, *replies, short = map(json.loads, done.stdout.splitlines())
    assert {} == ready
    assert [predictions[number][name] for name, number in order] == [reply["text"] for reply in replies]
    assert all(each["base"] != each["adapter"] for each in predictions)
    assert replies[0]["text"].startswith(short["text"])
    assert "length" == short["finish"]


def test_what_cannot_be_asked_is_answered_with_a_reason(folder: Path, adapter: Path, tmp_path: Path) -> None:
    """
    The conversation goes on: the next question may be shorter.
    """
    long = [{"role": "user", "content": TEXTS[0] * 200}]
    request = {"messages": long, "condition": "base", "max_tokens": 1}
    done = asked(folder, [*given(adapter, tmp_path), "--max-seq-len", "50"], [request, request])

    assert 0 == done.returncode
    assert 2 == done.stdout.count("more than train.max_seq_len, 50")


def test_a_missing_adapter_is_named(folder: Path, tmp_path: Path) -> None:
    """
    By the line of every worker, before the model is loaded.
    """
    done = asked(folder, given(tmp_path / "none", tmp_path), [])

    assert (2, "") == (done.returncode, done.stdout)
    assert f"{tmp_path}/none/adapters.safetensors: is missing; run `./doit train`\n" == done.stderr
