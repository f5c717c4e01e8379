"""Settings that other trainers have: what each of them makes of a real training."""

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

from tests.worker.conftest import flags, inline
from thunder_train.core import files

pytestmark = pytest.mark.mlx


def train(folder: Path, place: Path, **changed: object) -> Any:
    """done.json of a training of eight rows."""
    done = inline("thunder_train.worker", flags(place / "adapter", **changed), folder)
    assert 0 == done.returncode, done.stdout + done.stderr
    return json.loads((place / "adapter/done.json").read_text())


def config(place: Path) -> Any:
    """What mlx-lm reads of the adapter."""
    return json.loads((place / "adapter/adapter_config.json").read_text())


def weights(place: Path) -> bytes:
    """The adapter."""
    return (place / "adapter/adapters.safetensors").read_bytes()


@pytest.mark.parametrize(("epochs", "steps"), [(1, 3), (1.5, 5), (2, 6), (0.1, 1)])
def test_epochs_become_steps(folder: Path, tmp_path: Path, epochs: float, steps: int) -> None:
    """
    Eight rows, three a step: the third step of an epoch has the two that are left.
    """
    assert steps == train(folder, tmp_path, num_iters=0, epochs=epochs, batch_size=3)["steps"]


def test_two_epochs_are_the_training_of_their_steps(folder: Path, tmp_path: Path) -> None:
    """
    Only the way to say it differs.
    """
    train(folder, tmp_path / "epochs", num_iters=0, epochs=2, batch_size=3)
    train(folder, tmp_path / "steps", num_iters=6, batch_size=3)

    assert weights(tmp_path / "epochs") == weights(tmp_path / "steps")


def test_a_ratio_warms_up_for_its_share_of_the_steps(folder: Path, tmp_path: Path) -> None:
    """
    A tenth of 20 steps is 2.
    """
    train(folder, tmp_path / "ratio", num_iters=20, warmup_ratio=0.1)
    train(folder, tmp_path / "steps", num_iters=20, warmup_steps=2)

    assert weights(tmp_path / "ratio") == weights(tmp_path / "steps")


def test_a_warm_up_longer_than_the_epochs_is_refused(folder: Path, tmp_path: Path) -> None:
    """
    The recipe alone does not tell: the number of rows decides.
    """
    given = flags(tmp_path / "adapter", num_iters=0, epochs=1, batch_size=8, warmup_steps=5)
    done = inline("thunder_train.worker", given, folder)

    assert "--warmup-steps: is 5 of 1 steps; warm up for fewer steps than there are" in done.stderr


def test_all_layers_are_as_many_as_the_model_has(folder: Path, tmp_path: Path) -> None:
    """
    mlx-lm reads a number in adapter_config.json.
    """
    train(folder, tmp_path / "all", num_layers="all")
    train(folder, tmp_path / "two", num_layers=2)

    assert 2 == config(tmp_path / "all")["num_layers"]
    assert weights(tmp_path / "all") == weights(tmp_path / "two")


def test_alpha_is_scale_times_rank(folder: Path, tmp_path: Path) -> None:
    """
    PEFT and axolotl give alpha.
    """
    train(folder, tmp_path / "alpha", lora_alpha=32)
    train(folder, tmp_path / "scale", lora_scale=8)

    assert 8.0 == config(tmp_path / "alpha")["lora_parameters"]["scale"]
    assert weights(tmp_path / "alpha") == weights(tmp_path / "scale")


@pytest.mark.parametrize(
    ("keys", "names"),
    [
        ("q_proj,v_proj", ["self_attn.q_proj", "self_attn.v_proj"]),
        ("mlp.*", ["mlp.down_proj", "mlp.gate_proj", "mlp.up_proj"]),
        ("*.mlp.*,*.o_proj", ["mlp.down_proj", "mlp.gate_proj", "mlp.up_proj", "self_attn.o_proj"]),
    ],
)
def test_names_and_patterns_become_the_names_that_mlx_lm_knows(
    folder: Path, tmp_path: Path, keys: str, names: list[str]
) -> None:
    """
    It ignores a key that it does not find, and would load an adapter without effect.
    """
    from mlx_lm.utils import load

    train(folder, tmp_path, lora_keys=keys)
    loaded, _ = load(str(folder / "nano"), adapter_path=str(tmp_path / "adapter"))

    assert names == config(tmp_path)["lora_parameters"]["keys"]
    adapted = {name.rpartition(".")[0] for name, _ in loaded.named_modules() if name.endswith(".linear")}
    assert set(names) == {name.split(".", 3)[3] for name in adapted}


def test_a_pattern_that_matches_nothing_is_an_error(folder: Path, tmp_path: Path) -> None:
    """
    With the names that there are.
    """
    done = inline("thunder_train.worker", flags(tmp_path / "adapter", lora_keys="*.experts.*"), folder)

    assert "--lora-keys: no layer is called '*.experts.*'; use some of: mlp.down_proj, " in done.stderr


def test_the_output_layer_can_get_lora(tmp_path: Path, folder: Path) -> None:
    """
    mlx-lm's own loader finds it by its name; a tied model has none.
    """
    from mlx_lm.utils import load

    from tests.helpers import model_folders

    untied = model_folders.make(tmp_path / "untied", "llama")
    train(folder, tmp_path, model=untied, lora_keys="lm_head,q_proj")
    tensors = load_file(tmp_path / "adapter/adapters.safetensors")
    loaded, _ = load(str(untied), adapter_path=str(tmp_path / "adapter"))
    tied = model_folders.make(tmp_path / "tied", "qwen3")
    refused = inline("thunder_train.worker", flags(tmp_path / "b", model=tied, lora_keys="lm_head"), folder)

    assert {"lm_head.lora_a", "lm_head.lora_b"} < set(tensors)
    assert abs(tensors["lm_head.lora_b"]).max() > 0
    assert (loaded.lm_head.lora_b == tensors["lm_head.lora_b"]).all()
    expected = "--lora-keys: this model's output layer is its embedding, which gets no LoRA; leave lm_head out"
    assert expected in refused.stderr


@pytest.mark.parametrize("keys", ["lm_head", "lm_head,q_proj"])
def test_an_adapter_of_the_output_layer_is_evaluated_and_fused(tmp_path: Path, folder: Path, keys: str) -> None:
    """
    Alone, it leaves no block to adapt: all of them are kept as frozen ones in the evaluation.
    """
    from tests.helpers import model_folders

    untied = model_folders.make(tmp_path / "untied", "llama")
    done = train(folder, tmp_path, model=untied, lora_keys=keys, num_iters=4, learning_rate=0.01)
    given = {"model": untied, "adapter_path": tmp_path / "adapter", "valid_data": "valid.jsonl"}
    given |= {"test_data": "test.jsonl", "max_tokens": 2, "predictions": tmp_path / "p", "losses": tmp_path / "l"}
    argv = [str(part) for name, value in given.items() for part in (f"--{name}".replace("_", "-"), value)]
    evaluated = inline("thunder_train.worker.generate", argv, folder)
    losses = files.read_json(tmp_path / "l")
    fused = inline(
        "thunder_train.worker.fuse", [*argv, "--fused", str(tmp_path / "f"), "--dequantize", "false"], folder
    )

    assert (0, "", 0, "") == (evaluated.returncode, evaluated.stderr, fused.returncode, fused.stderr)
    assert losses["adapter"]["valid"]["loss"] == pytest.approx(done["losses"]["valid"][-1][1], abs=2e-6)
    assert losses["adapter"]["valid"]["loss"] < losses["base"]["valid"]["loss"] - 0.1
    assert 1.0 == files.read_json(tmp_path / "l")["kept"]


def test_everything_trains_on_prompts_too(folder: Path, tmp_path: Path) -> None:
    """
    As mlx-lm does by default: each token of a row but the first is a target.
    """
    done = train(folder, tmp_path, train_on="everything")

    assert done["tokens"]["train"] - done["rows"]["train"] == done["tokens"]["train_targets"]


def test_a_part_of_the_validation_rows_is_spread_and_fixed(folder: Path, tmp_path: Path) -> None:
    """
    A validation of 50,000 rows takes longer than the training between two of them.
    """
    rows = (folder / "valid.jsonl").read_text().splitlines(keepends=True)
    files.write_text(tmp_path / "two.jsonl", rows[0] + rows[1])
    part = train(folder, tmp_path / "part", eval_rows=2)
    whole = train(folder, tmp_path / "whole", valid_data=tmp_path / "two.jsonl")

    assert (3, 2, "validated_rows" in whole) == (part["rows"]["valid"], part["validated_rows"], False)
    assert part["losses"] == whole["losses"]
