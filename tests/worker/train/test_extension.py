"""A finished training goes on when its recipe gets more steps, if it ends as the longer one would have."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.worker.conftest import flags, inline, python
from thunder_train.worker.train import checkpoint
from thunder_train.worker.train.checkpoint import Checkpoint, Progress

pytestmark = pytest.mark.mlx

LONG: dict[str, Any] = {"num_iters": 20, "eval_every": 5, "save_every": 4, "warmup_steps": 4, "lora_dropout": 0.1}


def trained(folder: Path, place: Path, **changed: object) -> list[str]:
    """The lines of a training."""
    done = inline("thunder_train.worker", flags(place / "adapter", **{**LONG, **changed}), folder)
    assert 0 == done.returncode, done.stdout + done.stderr
    return done.stdout.splitlines()


def outputs(place: Path) -> tuple[bytes, bytes]:
    """What a run's manifest lists of a training."""
    return (place / "adapter/adapters.safetensors").read_bytes(), (place / "adapter/done.json").read_bytes()


@pytest.fixture
def whole(folder: Path, tmp_path: Path) -> tuple[bytes, bytes]:
    """The outputs of 20 steps at once."""
    trained(folder, tmp_path / "whole")
    return outputs(tmp_path / "whole")


def test_10_steps_and_then_20_are_20_at_once(folder: Path, tmp_path: Path, whole: tuple[bytes, bytes]) -> None:
    """
    Adapter and done.json to the byte: by the checkpoint in its own folder, or by one that was kept elsewhere.
    """
    trained(folder, tmp_path / "a", num_iters=10)
    kept = tmp_path / "kept"
    shutil.copytree(tmp_path / "a/checkpoints", kept)

    line = "step 10/20  goes on from here, as a training of 10 steps left it"
    assert line in trained(folder, tmp_path / "a")
    assert line in trained(folder, tmp_path / "b", extend_from=kept)
    assert whole == outputs(tmp_path / "a") == outputs(tmp_path / "b")
    assert ["0000010.safetensors"] == sorted(path.name for path in kept.iterdir())[-1:]  # it is only read


@pytest.mark.parametrize(
    ("short", "more", "why"),
    [
        ({"num_iters": 10}, {"eval_every": 3}, "the 10 steps of then are no multiple of --eval-every 3"),
        (
            {"num_iters": 11, "log_every": 2},
            {"log_every": 2},
            "the 11 steps of then are no multiple of --eval-every 5 and of --log-every 2",
        ),
        ({"num_iters": 24}, {}, "it is of 24 steps, and these are 20"),
        (
            {"num_iters": 10},
            {"num_layers": 1},
            "it reads its rows less than twice, and so computes all layers of each of them again",
        ),
    ],
    ids=["validation", "log", "fewer", "frozen layers"],
)
def test_another_end_begins_anew_and_says_why(
    folder: Path, tmp_path: Path, short: dict[str, Any], more: dict[str, Any], why: str
) -> None:
    """
    Its last validation could have chosen an adapter at a step that the longer training does not validate.
    """
    trained(folder, tmp_path / "whole", **more)
    trained(folder, tmp_path / "a", **{**more, **short})

    lines = trained(folder, tmp_path / "a", **more)

    place = tmp_path / "a/checkpoints"
    assert f"does not go on from step {short['num_iters']} of {place}: {why}" == lines[0]
    assert outputs(tmp_path / "whole") == outputs(tmp_path / "a")
    assert "0000020.safetensors" == max(path.name for path in place.iterdir())


def test_steps_that_keep_the_output_of_frozen_layers_alike_go_on(folder: Path, tmp_path: Path) -> None:
    """
    It is kept from two epochs on, here 16 steps, and changes the last bits.
    """
    chosen = {"num_layers": 1, "eval_every": 4}
    trained(folder, tmp_path / "whole", **chosen)
    trained(folder, tmp_path / "a", num_iters=16, **chosen)

    lines = trained(folder, tmp_path / "a", **chosen)

    assert "step 16/20  goes on from here, as a training of 16 steps left it" in lines
    assert outputs(tmp_path / "whole") == outputs(tmp_path / "a")


def test_a_kept_checkpoint_of_another_training_is_no_error(
    folder: Path, tmp_path: Path, whole: tuple[bytes, bytes]
) -> None:
    """
    A new version of mlx makes it one, and nobody asked for it by name.
    """
    trained(folder, tmp_path / "a", num_iters=10, learning_rate=1e-4)

    lines = trained(folder, tmp_path / "b", extend_from=tmp_path / "a/checkpoints")

    expected = f"does not go on from step 10 of {tmp_path}/a/checkpoints: holds a checkpoint of another training: "
    assert lines[0] == expected + "--learning-rate was 0.0001, is 0.001; --num-iters was 10, is 20"
    assert whole == outputs(tmp_path / "b")


@pytest.mark.parametrize(
    ("step", "steps", "schedule", "expected"),
    [
        (10, 10, "cosine", ""),
        (10, 20, "constant", ""),
        (7, 20, "constant", ""),
        (7, 20, "linear", "the number of steps is part of each learning rate with --schedule linear"),
        (7, 9, "constant", "it is of 10 steps, and these are 9"),
    ],
)
def test_a_checkpoint_is_of_use_where_the_longer_training_had_come_to_it(
    step: int, steps: int, schedule: str, expected: str
) -> None:
    """
    Before its last step, nothing of a constant schedule depends on how many there are.
    """
    last = Checkpoint({checkpoint.STEPS: "10"}, Progress(step=step), {}, {}, {})

    assert expected == checkpoint.not_extended(last, steps, schedule, {"--eval-every": 5})


@pytest.mark.ranks
@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["data", "tensor"])
def test_two_ranks_go_on_too(folder: Path, tmp_path: Path, strategy: str) -> None:
    """
    The checkpoint is the first host's, and every rank goes on from it.
    """

    def train(name: str, **changed: object) -> str:
        chosen = {**LONG, "strategy": strategy, "optimizer": "adafactor", **changed}
        command = ["--hostfile", "hosts.json", "--log-dir", str(tmp_path / name / "logs")]
        done = python("thunder_train.launch", [*command, *flags(tmp_path / name / "adapter", **chosen)], folder)
        assert 0 == done.returncode, done.stdout + done.stderr
        return done.stdout

    train("whole")
    train("a", num_iters=10)
    assert "step 10/20  goes on from here" in train("a")

    assert outputs(tmp_path / "whole") == outputs(tmp_path / "a")
    assert 20 == json.loads((tmp_path / "a/adapter/done.json").read_text())["steps"]
