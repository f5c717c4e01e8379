"""A training that begins with an adapter."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.worker.conftest import flags, inline

pytestmark = pytest.mark.mlx


@pytest.fixture
def begun(folder: Path, adapter: Path, tmp_path: Path) -> Path:
    """A copy of a trained adapter, which a test may change."""
    shutil.copytree(adapter, tmp_path / "begun")
    return tmp_path / "begun"


def trained(folder: Path, place: Path, **changed: object) -> tuple[int, str, str]:
    """Status, lines and errors of a training."""
    done = inline("thunder_train.worker", flags(place / "adapter", **changed), folder)
    return done.returncode, done.stdout, done.stderr


def test_the_validation_at_step_0_is_that_of_the_adapter(folder: Path, begun: Path, tmp_path: Path) -> None:
    """
    To the bit: the adapter's last validation is the first of the training that goes on from it.
    """
    status, lines, errors = trained(folder, tmp_path, start_from=begun)
    before, after = (json.loads((place / "done.json").read_text()) for place in (begun, tmp_path / "adapter"))

    assert 0 == status, errors
    assert before["best"]["step"] == before["steps"]
    assert [0, before["best"]["loss"]] == after["losses"]["valid"][0]
    assert {"path": "begun", "sha256": before["adapter"]["sha256"][:16]} == after["start"]
    assert f"it begins with the adapter in {begun}, which the validation at step 0 is of" == lines.splitlines()[0]


def test_a_start_that_nothing_improves_is_the_result(
    folder: Path, begun: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Its bytes, and a line that says so: "without effect" would be wrong.
    """
    from thunder_train.worker.train import loop
    from thunder_train.worker.train.validation import Validation

    losses = iter((1.0, 2.0, 2.0))
    monkeypatch.setattr(loop, "validate", lambda *_: Validation(next(losses), 5))
    status, lines, errors = trained(folder, tmp_path, start_from=begun)

    assert 0 == status, errors
    weights = [place / "adapters.safetensors" for place in (begun, tmp_path / "adapter")]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    assert f" of the adapter in {begun}: it is the result" in lines.splitlines()[-1]


def test_another_start_is_another_training(folder: Path, begun: Path, tmp_path: Path) -> None:
    """
    A checkpoint of the one is refused by the other: the weights count by their content, not by their place.
    """
    assert 0 == trained(folder, tmp_path, start_from=begun)[0]
    moved = tmp_path / "moved"
    shutil.copytree(begun, moved)
    assert 0 == trained(folder, tmp_path, start_from=moved)[0]
    tensors = load_file(begun / "adapters.safetensors")
    save_file({name: tensor * 2 for name, tensor in tensors.items()}, begun / "adapters.safetensors")

    status, _, errors = trained(folder, tmp_path, start_from=begun)

    assert 2 == status
    assert "holds a checkpoint of another training: --start-from was " in errors


def test_every_setting_that_does_not_fit_is_named(folder: Path, begun: Path, tmp_path: Path) -> None:
    """
    With the flag and its value; a start with another scale would compute something else.
    """
    chosen = {"lora_rank": 8, "lora_scale": 2, "num_layers": 1, "fine_tune_type": "dora"}
    status, _, errors = trained(folder, tmp_path, start_from=begun, **chosen)

    assert 2 == status
    assert [
        f"--fine-tune-type: is 'dora', and the adapter in {begun} has 'lora'; use 'lora'",
        f"--num-layers: is 1, and the adapter in {begun} has 2; use 2",
        f"--lora-rank: is 8, and the adapter in {begun} has 4; use 4",
        f"--lora-scale: is 2.0, and the adapter in {begun} has 20.0; use 20.0",
    ] == errors.splitlines()


def test_an_adapter_of_another_base_is_refused(folder: Path, begun: Path, tmp_path: Path) -> None:
    """
    By the name that its settings give, and by the shapes of its tensors.
    """
    config = json.loads((begun / "adapter_config.json").read_text())
    (begun / "adapter_config.json").write_text(json.dumps({**config, "model": "other"}))
    assert (
        f"--model: is 'nano', and the adapter in {begun} has 'other'; use 'other'\n"
        == trained(folder, tmp_path, start_from=begun)[2]
    )
    (begun / "adapter_config.json").write_text(json.dumps(config))
    tensors = load_file(begun / "adapters.safetensors")
    first, *others = sorted(tensors)
    save_file({name: tensors[name] for name in others}, begun / "adapters.safetensors")

    status, _, errors = trained(folder, tmp_path, start_from=begun)

    shape = " x ".join(map(str, tensors[first].shape))
    expected = f"does not fit the base and the layers: {first!r} is missing there and {shape} here; "
    assert 2 == status
    assert f"{begun}/adapters.safetensors: {expected}begin with an adapter of this base and these layers\n" == errors


def test_a_damaged_start_is_refused(folder: Path, begun: Path, tmp_path: Path) -> None:
    """
    A NaN in it would make each loss one.
    """
    tensors = load_file(begun / "adapters.safetensors")
    first = min(tensors)
    tensors[first][0, 0] = np.nan
    save_file(tensors, begun / "adapters.safetensors")
    fact = f"{begun}/adapters.safetensors: 1 tensors are not finite, first '{first}'; begin with another adapter\n"

    assert (2, fact) == trained(folder, tmp_path, start_from=begun)[::2]
    (begun / "adapters.safetensors").write_bytes(b"x" * 40)
    assert f"{begun}/adapters.safetensors: is cut short or damaged: " in trained(folder, tmp_path, start_from=begun)[2]
    (begun / "adapters.safetensors").unlink()
    assert (
        f"{begun}/adapters.safetensors: is missing; correct --start-from\n"
        == trained(folder, tmp_path, start_from=begun)[2]
    )


@pytest.mark.ranks
def test_split_layers_begin_with_the_same_adapter(folder: Path, begun: Path, tmp_path: Path) -> None:
    """
    Each rank reads the whole adapter before the layers are split.
    """
    from tests.worker.conftest import python

    arguments = flags(tmp_path / "adapter", start_from=begun, strategy="tensor")
    command = ["--hostfile", "hosts.json", "--log-dir", str(tmp_path / "logs"), *arguments]
    done = python("thunder_train.launch", command, folder)
    losses = [
        json.loads((place / "done.json").read_text())["losses"]["valid"] for place in (begun, tmp_path / "adapter")
    ]

    assert 0 == done.returncode, done.stdout + done.stderr
    assert pytest.approx(losses[0][-1][1], rel=1e-5) == losses[1][0][1]
