"""Real trainings on the nano base: one process, two local ring ranks."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.helpers.project_copy import PROJECT
from tests.worker.conftest import flags, inline, python
from thunder_train.core import files

pytestmark = pytest.mark.ranks

Process = subprocess.CompletedProcess[str]
Run = tuple[Path, Process]
"""An output folder and the launcher's process."""


def launch(folder: Path, log: Path, arguments: list[str]) -> Process:
    """Two ranks through our launcher."""
    return python("thunder_train.launch", ["--hostfile", "hosts.json", "--log-dir", str(log), *arguments], folder)


@pytest.fixture(scope="module")
def two(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The output folder of one short training on two ranks, and the launcher's process."""
    place = tmp_path_factory.mktemp("two")
    return place, launch(folder, place / "logs", flags(place / "adapter"))


def test_two_ranks_train_to_the_end(two: Run, folder: Path) -> None:
    """
    done.json is written last and describes the training, without times or paths.
    """
    place, done = two
    assert (0, "") == (done.returncode, done.stderr)
    facts = json.loads((place / "adapter/done.json").read_text())
    lines = done.stdout.splitlines()

    assert ("thunder.done/1", 4, 2, 0) == tuple(
        facts[key] for key in ("schema", "steps", "world_size", "skipped_steps")
    )
    assert ({"train": 8, "valid": 3}, {"train": 0, "valid": 0}) == (facts["rows"], facts["dropped"])
    assert facts["rows_sha256"] == {name: files.sha256(folder / f"{name}.jsonl")[:16] for name in ("train", "valid")}
    assert [1, 2, 3, 4] == [step for step, _ in facts["losses"]["train"]]
    assert [0, 2, 4] == [step for step, _ in facts["losses"]["valid"]]
    assert facts["losses"]["train"][-1][1] < facts["losses"]["train"][0][1]
    assert f"step 4/4  valid loss {facts['losses']['valid'][-1][1]:.4f}" in lines
    assert str(place) not in (place / "adapter/done.json").read_text()


def test_the_adapter_folder_is_whole(two: Run) -> None:
    """
    The chosen adapter, its config and done.json, next to last/ and checkpoints/; no temporary file is left.
    """
    place, _ = two
    names = sorted(path.name for path in (place / "adapter").iterdir())
    facts = json.loads((place / "adapter/done.json").read_text())

    assert ["adapter_config.json", "adapters.safetensors", "done.json"] == names
    assert ["0000002.safetensors", "0000004.safetensors"] == sorted(p.name for p in (place / "checkpoints").iterdir())
    assert ["adapter_config.json", "adapters.safetensors"] == sorted(path.name for path in (place / "last").iterdir())
    assert facts["adapter"]["sha256"] == files.sha256(place / "adapter/adapters.safetensors")


def test_metrics_go_beside_the_adapter(two: Run) -> None:
    """
    The report reads one line per event.
    """
    place, _ = two
    events = [(event["event"], event["step"]) for event in files.read_jsonl(place / "metrics.jsonl")]

    trained = [
        ("valid", 0),
        ("train", 1),
        ("train", 2),
        ("valid", 2),
        ("save", 2),
        ("train", 3),
        ("train", 4),
        ("valid", 4),
    ]
    assert [*trained, ("save", 4)] == events


def test_one_rank_with_two_rows_equals_two_ranks_with_one(folder: Path, two: Run, tmp_path: Path) -> None:
    """
    Sums of losses and gradients cross ranks, never means, so only the order of additions differs.
    """
    place, _ = two
    alone = inline("thunder_train.worker", flags(tmp_path / "adapter", batch_size=2), folder)
    assert (0, "") == (alone.returncode, alone.stderr)
    one = load_file(tmp_path / "adapter/adapters.safetensors")
    other = load_file(place / "adapter/adapters.safetensors")

    assert list(one) == list(other)
    for name, tensor in one.items():
        np.testing.assert_allclose(tensor, other[name], atol=1e-5)
    losses = [json.loads((path / "adapter/done.json").read_text())["losses"] for path in (tmp_path, place)]
    np.testing.assert_allclose(losses[0]["train"], losses[1]["train"], atol=1e-4)
    np.testing.assert_allclose(losses[0]["valid"], losses[1]["valid"], atol=1e-4)


def test_a_rank_without_a_row_in_the_last_batch_still_takes_part(folder: Path, tmp_path: Path) -> None:
    """
    Seven rows on two ranks: the last step of the epoch has one row, and all ranks agree on the sum.
    """
    rows = (folder / "train.jsonl").read_text().splitlines(keepends=True)[:7]
    (folder / "seven.jsonl").write_text("".join(rows))
    done = launch(folder, tmp_path / "logs", flags(tmp_path / "adapter", train_data="seven.jsonl"))

    assert 0 == done.returncode
    tokens = [event["tokens"] for event in files.read_jsonl(tmp_path / "metrics.jsonl") if event["event"] == "train"]
    facts = json.loads((tmp_path / "adapter/done.json").read_text())
    assert facts["tokens"]["train_targets"] == sum(tokens)


def test_mlx_lm_loads_the_adapter_and_it_holds_lora_leaves_only(folder: Path, two: Run) -> None:
    """
    The first Thunder Train's adapter held every base weight and did not load.
    """
    from mlx_lm import load

    place, _ = two
    model, _ = load(str(folder / "nano"), adapter_path=str(place / "adapter"))
    tensors = load_file(place / "adapter/adapters.safetensors")

    assert {"lora_a", "lora_b"} == {name.rpartition(".")[2] for name in tensors}
    assert all(name.startswith("model.layers.") for name in tensors)
    assert any("lora_b" in name and tensor.any() for name, tensor in tensors.items())
    assert (np.array(model.model.layers[1].self_attn.q_proj.lora_b) != 0).any()


def test_the_same_training_gives_the_same_bytes_also_under_mlx_launch(folder: Path, two: Run, tmp_path: Path) -> None:
    """
    A run can be reproduced from its manifest. Users may keep their own setup, whose exit status says nothing.
    """
    place, _ = two
    launcher = Path(sys.executable).with_name("mlx.launch")
    worker = [sys.executable, "-m", "thunder_train.worker", *flags(tmp_path / "adapter"), "--hostfile", "hosts.json"]
    env = {**os.environ, "PYTHONPATH": str(PROJECT)}
    argv = [str(launcher), "--hostfile", "hosts.json", "--", *worker]
    subprocess.run(argv, cwd=folder, env=env, capture_output=True, timeout=120, check=False)

    for name in ("adapters.safetensors", "adapter_config.json", "done.json"):
        assert (place / "adapter" / name).read_bytes() == (tmp_path / "adapter" / name).read_bytes()


def test_every_mistake_is_reported_without_a_traceback(folder: Path, tmp_path: Path) -> None:
    """
    All ranks find the same mistake, and the launcher exits with their status.
    """
    done = launch(folder, tmp_path / "logs", flags(tmp_path / "adapter", num_layers=9, max_seq_len=10))

    assert 2 == done.returncode
    assert "Traceback" not in done.stdout + done.stderr
    assert "would be cut at 10 tokens" in (tmp_path / "logs/rank-0.log").read_text() + done.stderr
    assert not (tmp_path / "adapter").exists()


def test_a_lone_rank_of_several_refuses_to_train_alone(folder: Path, tmp_path: Path) -> None:
    """
    MLX would take it for the only rank, and every Mac would write its own adapter.
    """
    done = python("thunder_train.worker", flags(tmp_path / "adapter"), folder, MLX_RANK="1")

    expected = "--hostfile: is missing, but MLX_RANK says that this is one of several ranks; pass the hostfile\n"
    assert (2, expected) == (done.returncode, done.stderr)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_killed_in_training_ends_the_run_and_leaves_no_done(folder: Path, tmp_path: Path, rank: int) -> None:
    """
    A half-trained adapter must not look complete, and no rank may wait for a dead one.
    """
    arguments = flags(tmp_path / "adapter", num_iters=100_000, eval_every=100_000, save_every=100_000, log_every=50)
    argv = [sys.executable, "-m", "thunder_train.launch", "--hostfile", "hosts.json", "--log-dir", str(tmp_path)]
    env = {**os.environ, "PYTHONPATH": str(PROJECT)}
    process = subprocess.Popen([*argv, *arguments], cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()  # both ranks are in the loop now
    os.kill(worker_pid(process.pid, rank), signal.SIGKILL)
    start = time.monotonic()
    _, err = process.communicate(timeout=30)

    assert 137 == process.returncode
    assert err.decode().startswith(f"rank {rank} (127.0.0.1): ended by signal 9; ")
    assert time.monotonic() - start < 8
    assert not (tmp_path / "adapter/done.json").exists()


def worker_pid(launcher: int, rank: int) -> int:
    """The process of a rank: the launcher's children are in the order in which they were started."""
    tasks = Path(f"/proc/{launcher}/task/{launcher}/children")
    if not tasks.exists():
        pytest.skip("no /proc here")
    return int(tasks.read_text().split()[rank])


def test_the_smoke_test_sums_on_every_rank(folder: Path, tmp_path: Path) -> None:
    """
    One line per rank, for preflight to read; a single process answers too.
    """
    done = launch(folder, tmp_path, ["--module", "thunder_train.worker.allreduce_check"])
    alone = inline("thunder_train.worker.allreduce_check", [], folder)
    logs = [(tmp_path / f"rank-{rank}.log").read_text() for rank in (0, 1)]
    answers = [json.loads(text.removeprefix("thunder-smoke ")) for text in [*logs, alone.stdout]]

    assert 0 == done.returncode
    assert [(0, 2, True), (1, 2, True), (0, 1, True)] == [(a["rank"], a["size"], a["all_sum"]) for a in answers]
    facts = {"mlx", "mlx_lm", "platform", "python"}
    assert {"all_sum", "bytes_per_second", "rank", "seconds", "size", *facts} == set(answers[0])


def test_wrong_sums_end_the_smoke_test_with_1(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Some releases of MLX added long messages wrongly, without an error.
    """
    from thunder_train.worker import allreduce_check, ranks

    monkeypatch.setattr(ranks.Ranks, "sum", lambda self, values: values + 1)
    with pytest.raises(SystemExit) as caught:
        allreduce_check.main([])

    assert 1 == caught.value.code
    assert '"all_sum": false' in capsys.readouterr().out
