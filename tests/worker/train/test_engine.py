"""Trainings on real ranks: the same numbers for any number of ranks, and nothing lost by a kill."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.helpers.project_copy import PROJECT
from tests.worker.conftest import flags, inline, row, rows_in, write_rows
from thunder_train import ThunderError
from thunder_train.core import files

pytestmark = pytest.mark.ranks

LETTERS = "ߊߋߌߍߎߏߐߓߔߕߖߗߘ"


@pytest.fixture(scope="module")
def ragged(folder: Path) -> Path:
    """Rows of very unequal length, so that ranks and micro-batches hold unequal token counts; 13 of them, a prime."""
    dice = random.Random(7)  # noqa: S311
    texts = ["".join(dice.choices(LETTERS, k=size)) for size in (2, 90, 3, 5, 40, 2, 8, 60, 4, 3, 2, 30, 6)]
    write_rows(folder / "ragged.jsonl", [row(i, text) for i, text in enumerate(texts)])
    for ranks in (1, 3, 4):
        host = {"ssh": "127.0.0.1", "ips": ["127.0.0.1"], "rdma": []}
        (folder / f"hosts{ranks}.json").write_text(json.dumps({"backend": "ring", "envs": [], "hosts": [host] * ranks}))
    return folder


def arguments_of(place: Path, **changed: object) -> list[str]:
    """Flags of a training of ragged rows; its output folder is place."""
    chosen: dict[str, Any] = {"train_data": "ragged.jsonl", "num_iters": 6, "micro_tokens": 128, "eval_every": 3}
    return flags(place / "adapter", **(chosen | changed))


def start(folder: Path, place: Path, hosts: str, **changed: object) -> "subprocess.Popen[str]":
    """Begin a training of ragged rows; its output folder is place."""
    command = ["--hostfile", hosts, "--log-dir", str(place / "logs"), *arguments_of(place, **changed)]
    return subprocess.Popen(
        [sys.executable, "-m", "thunder_train.launch", *command],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(folder: Path, place: Path, hosts: str, **changed: object) -> Path:
    """Train to the end."""
    process = start(folder, place, hosts, **changed)
    output = process.communicate(timeout=120)[0]
    assert 0 == process.returncode, output
    return place


def alone(folder: Path, place: Path, **changed: object) -> Path:
    """Train to the end as the only rank, in this process."""
    done = inline("thunder_train.worker", arguments_of(place, **changed), folder)
    assert 0 == done.returncode, done.stdout + done.stderr
    return place


def outcome(place: Path) -> tuple[bytes, bytes, Any, list[Any]]:
    """What must be the same to the bit: adapter, last checkpoint, done.json, events; times and metrics left out."""
    done = json.loads((place / "adapter/done.json").read_text())
    from thunder_train.worker.train import checkpoint

    last = checkpoint.decode(sorted((place / "checkpoints").iterdir())[-1].read_bytes())
    last.progress.metrics.clear()
    events = [json.loads(line) for line in (place / "metrics.jsonl").read_text().splitlines()]
    kept = ("event", "step", "loss", "tokens", "learning_rate", "grad_norm")
    logged = [{key: event[key] for key in kept if key in event} for event in events if event["event"] != "resume"]
    return (place / "adapter/adapters.safetensors").read_bytes(), checkpoint.encode(last), done, logged


@pytest.mark.parametrize("global_batch_size", [pytest.param(4, marks=pytest.mark.slow), 13])
def test_the_world_size_does_not_change_the_result(ragged: Path, tmp_path: Path, global_batch_size: int) -> None:
    """
    1, 2 and 4 ranks with the same rows per step agree within 1e-5, with a last short batch and several micro-batches.
    """
    places = [
        alone(ragged, tmp_path / "one", global_batch_size=global_batch_size),
        *(
            finish(ragged, tmp_path / hosts, hosts, global_batch_size=global_batch_size)
            for hosts in ("hosts.json", "hosts4.json")
        ),
    ]
    losses = [json.loads((place / "adapter/done.json").read_text())["losses"] for place in places]
    adapters = [load_file(place / "adapter/adapters.safetensors") for place in places]

    for other, tensors in zip(losses[1:], adapters[1:], strict=True):
        for kind in ("train", "valid"):
            assert [pytest.approx(loss, rel=1e-5) for _, loss in losses[0][kind]] == [loss for _, loss in other[kind]]
        for name, tensor in adapters[0].items():
            assert np.allclose(tensor, tensors[name], rtol=1e-5, atol=1e-5 * np.abs(tensor).max()), name


@pytest.mark.slow
def test_a_part_of_the_validation_rows_is_the_same_for_every_world_size(ragged: Path, tmp_path: Path) -> None:
    """
    eval_rows chooses rows before the ranks share them: 1, 2 and 4 ranks agree on each loss within 1e-5.
    """
    chosen = {"valid_data": "ragged.jsonl", "eval_rows": 5, "global_batch_size": 13}
    places = [
        alone(ragged, tmp_path / "one", **chosen),
        *(finish(ragged, tmp_path / hosts, hosts, **chosen) for hosts in ("hosts.json", "hosts4.json")),
    ]
    done = [json.loads((place / "adapter/done.json").read_text()) for place in places]

    assert [5] * 3 == [each["validated_rows"] for each in done]
    assert done[0]["rows"]["valid"] > 5
    for other in done[1:]:
        valid = [pytest.approx(loss, rel=1e-5) for _, loss in done[0]["losses"]["valid"]]
        assert valid == [loss for _, loss in other["losses"]["valid"]]


def test_unequal_machines_train_the_same_adapter(ragged: Path, tmp_path: Path) -> None:
    """
    Two ranks, one of them three times as fast, agree with one rank within 1e-5: weights decide who computes a row.
    """
    one = alone(ragged, tmp_path / "one", global_batch_size=6)
    two = finish(ragged, tmp_path / "two", "hosts.json", global_batch_size=6, weights="3,1")
    adapters = [load_file(place / "adapter/adapters.safetensors") for place in (one, two)]

    for name, tensor in adapters[0].items():
        assert np.allclose(tensor, adapters[1][name], rtol=1e-5, atol=1e-5 * np.abs(tensor).max()), name


def test_the_flag_reaches_the_share_of_each_rank(ragged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Three quarters of the tokens for weight 3 of 4, in the data loader of a real training; every row once.
    """
    from thunder_train.worker.args import parse
    from thunder_train.worker.ranks import Ranks
    from thunder_train.worker.train import setup

    monkeypatch.chdir(ragged)
    chosen = parse(flags(tmp_path / "adapter", train_data="ragged.jsonl", global_batch_size=13, micro_tokens=128))
    ready = setup.prepare(chosen, Ranks(0, 1))
    uneven = replace(chosen, weights=(3.0, 1.0))
    shares = [setup._loader(uneven, ready, "train", Ranks(rank, 2)).step(0) for rank in range(2)]
    rows = [[tokens for batch in share for tokens in rows_in(batch)] for share in shares]
    expected = [example.tokens for example in ready.splits["train"].examples]

    assert sorted(expected) == sorted(rows[0] + rows[1])
    assert 0.7 < sum(map(len, rows[0])) / sum(map(len, expected)) < 0.8


def test_rows_that_change_while_they_are_read_are_not_trained_on(
    ragged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    done.json states the rows by what the ranks compared before they loaded the model.
    """
    from thunder_train.worker.args import parse
    from thunder_train.worker.batching import tokens
    from thunder_train.worker.ranks import Ranks
    from thunder_train.worker.train import setup

    rows, read = tmp_path / "rows.jsonl", tokens.read
    rows.write_bytes((ragged / "ragged.jsonl").read_bytes())

    def swapping(*given: Any) -> tokens.Split:
        rows.write_bytes(b"".join(rows.read_bytes().splitlines(keepends=True)[::-1]))
        return read(*given)

    monkeypatch.chdir(ragged)
    chosen = parse(flags(tmp_path / "adapter", train_data=str(rows), global_batch_size=13))
    swaps = iter([swapping])
    monkeypatch.setattr(tokens, "read", lambda *given: next(swaps, read)(*given))

    with pytest.raises(ThunderError, match=r"^--train-data: rows or model changed while they were read; train again$"):
        setup.prepare(chosen, Ranks(0, 1))


@pytest.mark.slow
def test_weights_must_be_as_many_as_the_ranks_and_are_part_of_the_run(ragged: Path, tmp_path: Path) -> None:
    """
    A number too few would leave a rank without rows; other weights add up in another order, so it is another training.
    """
    finish(ragged, tmp_path, "hosts.json", num_iters=3, weights="3,1")
    refusals = []
    for weights in ("1,2,3", "2,1"):
        process = start(ragged, tmp_path, "hosts.json", num_iters=3, weights=weights)
        refusals.append(process.communicate(timeout=60)[0])
        assert 2 == process.returncode

    assert "--weights: gives 3 numbers for 2 ranks; give one for each rank, or none" in refusals[0]
    assert "another training: --weights was (3.0, 1.0), is (2.0, 1.0); " in refusals[1]


def test_accumulation_packing_and_micro_batches_do_not_change_the_result(ragged: Path, tmp_path: Path) -> None:
    """
    Sums are added up before they are divided, so how the rows of a step go through the model cannot matter.
    """
    ways: list[dict[str, Any]] = [
        {"batch_size": 6},
        {"batch_size": 2, "grad_accumulation": 3},
        {"global_batch_size": 6, "packing": "never", "micro_tokens": 4096},
    ]
    places = [alone(ragged, tmp_path / str(i), **way) for i, way in enumerate(ways)]
    losses = [json.loads((place / "adapter/done.json").read_text())["losses"]["train"] for place in places]

    for other in losses[1:]:
        assert [pytest.approx(loss, rel=1e-5) for _, loss in losses[0]] == [loss for _, loss in other]


@pytest.mark.parametrize(
    ("hosts", "more"),
    [
        pytest.param("hosts1.json", {"packing": "never"}, id="one rank", marks=pytest.mark.slow),
        pytest.param("hosts.json", {}, id="two ranks, packed", marks=pytest.mark.slow),
        pytest.param("hosts.json", {"strategy": "tensor"}, id="two ranks, tensor", marks=pytest.mark.slow),
        *(
            pytest.param("hosts1.json", {"optimizer": name, "weight_decay": 0}, id=name, marks=pytest.mark.slow)
            for name in ("adam", "sgd", "muon", "adafactor", "lion")
        ),
    ],
)
def test_a_run_killed_at_random_steps_ends_as_if_it_had_not_been(
    ragged: Path, tmp_path: Path, hosts: str, more: dict[str, Any]
) -> None:
    """
    kill -9 of one rank or of all, again and again: adapter, optimizer, losses and metrics are bit-identical in the end.
    """
    long: dict[str, Any] = {
        "num_iters": 100,
        "save_every": 3,
        "eval_every": 5,
        "schedule": "cosine",
        "lora_dropout": 0.1,
        **more,
    }
    expected = outcome(finish(ragged, tmp_path / "whole", hosts, **long))
    dice, place = random.Random(11), tmp_path / "killed"  # noqa: S311
    log = place / "logs/rank-0.log"
    for every in (False, True, False):
        log.unlink(missing_ok=True)
        process = start(ragged, place, hosts, **long)
        steps, limit = dice.randint(4, 12), time.monotonic() + 60
        while not (log.exists() and steps <= log.read_text().count("train loss")):
            assert time.monotonic() < limit
            assert process.poll() is None, process.communicate()[0]
            time.sleep(0.02)
        kill_ranks(place, every)
        assert 0 != process.wait(timeout=30)
    finish(ragged, place, hosts, **long)

    assert "goes on from here" in (place / "logs/rank-0.log").read_text()
    assert expected == outcome(place)


def kill_ranks(place: Path, every: bool) -> None:
    """kill -9 rank 1 (or the only one), or every rank, of the training that writes into place."""
    numbers = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                argv = (process / "cmdline").read_bytes().decode().split("\0")
            except OSError:
                continue
            if "thunder_train.worker" in argv and str(place / "adapter") in argv:
                numbers.append(int(process.name))
    for number in sorted(numbers)[:: 1 if every else -len(numbers)]:
        os.kill(number, signal.SIGKILL)


def test_a_checkpoint_of_another_training_is_refused(ragged: Path, tmp_path: Path) -> None:
    """
    Resuming from it would mix two trainings; each differing key is named.
    """
    alone(ragged, tmp_path, num_iters=3)
    done = inline("thunder_train.worker", arguments_of(tmp_path, num_iters=3, learning_rate=1e-4), ragged)

    assert 2 == done.returncode
    place = tmp_path / "checkpoints"
    assert f"{place}: holds a checkpoint of another training: --learning-rate was 0.001, is 0.0001; " in done.stderr
    assert "delete the folder to start from the beginning, or give another --checkpoint-path" in done.stderr


def test_a_damaged_checkpoint_is_passed_over(ragged: Path, tmp_path: Path) -> None:
    """
    The one before it is used, with a warning, and the end is the same.
    """
    place = alone(ragged, tmp_path)
    expected = outcome(place)
    newest = sorted((place / "checkpoints").iterdir())[-1]
    data = bytearray(newest.read_bytes())
    data[-5] ^= 1
    newest.write_bytes(data)
    again = inline("thunder_train.worker", arguments_of(tmp_path), ragged)

    assert "0000006.safetensors: is damaged; the one before it is used" in again.stdout + again.stderr
    assert expected == outcome(place)


def test_ranks_that_hold_other_rows_do_not_train(ragged: Path, tmp_path: Path) -> None:
    """
    Two Macs with different datasets would average two trainings.
    """
    text = (ragged / "ragged.jsonl").read_text()
    probe = (
        "import os, sys; rank = os.environ['MLX_RANK'];"
        "sys.argv[sys.argv.index('ragged.jsonl')] = f'ragged-{rank}.jsonl';"
        "from thunder_train.worker import __main__ as w;"
        "from thunder_train.worker.bootstrap import enter; enter(w.main)"
    )
    (ragged / "other_rows.py").write_text(probe)
    for rank, rows in enumerate((text, text + text.splitlines()[0].replace("row-0", "row-x") + "\n")):
        (ragged / f"ragged-{rank}.jsonl").write_text(rows)
    command = ["--hostfile", "hosts.json", "--log-dir", str(tmp_path / "logs"), "--module", "other_rows"]
    done = subprocess.run(
        [sys.executable, "-m", "thunder_train.launch", *command, *flags(tmp_path / "a", train_data="ragged.jsonl")],
        cwd=ragged,
        env={**os.environ, "PYTHONPATH": f"{PROJECT}:{ragged}"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    log = (tmp_path / "logs/rank-1.log").read_text()

    assert 2 == done.returncode
    hashes = [files.sha256(ragged / f"ragged-{rank}.jsonl")[:16] for rank in (0, 1)]
    assert f"rank 1: would not train the same as rank 0: --train-data is {hashes[0]} there, {hashes[1]} here" in log


NAN_PROBE = """
import os
from thunder_train.worker import __main__ as w
from thunder_train.worker.batching import batch, broken_rows
from thunder_train.worker.bootstrap import enter

def main(argv):
    import mlx.core as mx
    from thunder_train.worker.train import loop, validation
    calls, sums = [], loop.local_sums

    def local_sums(*given):
        gradient, loss, tokens = sums(*given)
        calls.append(1)
        is_broken = os.environ["MLX_RANK"] == "1" and len(calls) == 2
        return gradient, loss + (mx.nan if is_broken else 0.0), tokens

    def loss_sum(model, rows):
        return batch.loss_sum(model, rows) * (mx.nan if "row-1" in [row.row_id for row in rows.rows] else 1.0)

    loop.local_sums, validation.loss_sum, broken_rows.loss_sum = local_sums, loss_sum, loss_sum
    w.main(argv)

enter(main)
"""


@pytest.mark.parametrize("strategy", ["data", "tensor"])
def test_what_is_not_finite_on_one_rank_is_skipped_by_all(ragged: Path, tmp_path: Path, strategy: str) -> None:
    """
    A step of rank 1, and each validation, for one row. The ranks still hold the same adapter at the end.
    """
    (ragged / "nan_probe.py").write_text(NAN_PROBE)
    command = ["--hostfile", "hosts.json", "--log-dir", str(tmp_path / "logs"), "--module", "nan_probe"]
    done = subprocess.run(
        [sys.executable, "-m", "thunder_train.launch", *command, *flags(tmp_path / "adapter", strategy=strategy)],
        cwd=ragged,
        env={**os.environ, "PYTHONPATH": f"{PROJECT}:{ragged}"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert 0 == done.returncode, done.stderr
    facts, lines = json.loads((tmp_path / "adapter/done.json").read_text()), done.stdout.splitlines()
    skipped = [f"step {step}/4  validation skipped: the loss is not finite for 1 row: row-1" for step in (0, 2, 4)]

    assert (1, 3, None, 4) == (
        facts["skipped_steps"],
        facts["skipped_validations"],
        facts["best"],
        facts["chosen"]["step"],
    )
    assert skipped == [line for line in lines if "validation skipped" in line]
    assert ["step 2/4  skipped: the gradient is not finite on rank 1"] == [
        line.partition(";")[0] for line in lines if "gradient" in line
    ]
    last = "no validation had a finite loss, so nothing says which adapter is best: this is the last step's"
    assert last == lines[-1]


def test_dora_and_gradient_checkpointing_train_and_load_in_mlx_lm(ragged: Path, tmp_path: Path) -> None:
    """
    mlx-lm must also load a DoRA adapter; gradient checkpointing does not change its form.
    """
    import mlx_lm

    place = finish(ragged, tmp_path, "hosts1.json", fine_tune_type="dora", grad_checkpoint="true", num_iters=2)
    tensors = load_file(place / "adapter/adapters.safetensors")
    model, _ = mlx_lm.load(str(ragged / "nano"), adapter_path=str(place / "adapter"))

    assert {"lora_a", "lora_b", "m"} == {name.rpartition(".")[2] for name in tensors}
    assert any(type(module).__name__ == "DoRALinear" for _, module in model.named_modules())
