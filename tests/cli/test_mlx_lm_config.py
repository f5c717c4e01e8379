"""A config of mlx_lm.lora as keys of a recipe."""

from pathlib import Path
from typing import Any

import pytest
from mlx_lm import lora

from thunder_train import ThunderError
from thunder_train.cli import mlx_lm_config

TAKEN = {"mask_prompt": True, "train": True}


def train_of(**table: Any) -> dict[str, Any]:
    """Keys of [train]."""
    return mlx_lm_config.converted(TAKEN | table, "lora.yaml").train


def notes_of(**table: Any) -> list[str]:
    """What has no place."""
    return mlx_lm_config.converted(TAKEN | table, "lora.yaml").notes


def test_every_key_of_mlx_lm_has_a_place_or_a_reason() -> None:
    """
    The defaults of the installed version convert without a word but about its optimizer's like.
    """
    defaults = {**lora.CONFIG_DEFAULTS, "mask_prompt": True, "train": True, "data": "mine"}

    converted = mlx_lm_config.converted(defaults, "lora.yaml")

    assert [] == converted.notes
    assert ("Qwen/Qwen3-0.6b", "mine") == (converted.model, converted.data)
    assert {"num_iters": 1000, "global_batch_size": 4, "num_layers": 16, "lora_rank": 8, "lora_scale": 20.0} == {
        key: converted.train[key] for key in ("num_iters", "global_batch_size", "num_layers", "lora_rank", "lora_scale")
    }


def test_iterations_become_steps() -> None:
    """
    mlx-lm counts batches, of which several make an update.
    """
    train = train_of(iters=400, grad_accumulation_steps=4, batch_size=2, steps_per_eval=100, steps_per_report=1)

    assert (100, 8, 25, 1) == tuple(train[key] for key in ("num_iters", "global_batch_size", "eval_every", "log_every"))


@pytest.mark.parametrize(
    ("table", "key", "value"),
    [
        ({"optimizer": "adam"}, "weight_decay", 0.0),
        ({}, "optimizer", "adam"),
        ({"optimizer": "muon"}, "optimizer", "muon"),
        ({"optimizer": "muon"}, "weight_decay", 0.01),
        ({"optimizer": "sgd"}, "weight_decay", 0.0),
        ({"optimizer": "adamw"}, "weight_decay", 0.01),
        ({"optimizer": "adamw", "optimizer_config": {"adamw": {"weight_decay": "1e-3"}}}, "weight_decay", 1e-3),
        ({"learning_rate": "2e-5"}, "learning_rate", 2e-5),
        ({"lora_parameters": {"rank": 16, "alpha": 32}}, "lora_scale", 2.0),
        ({"lora_parameters": {"keys": ["self_attn.q_proj"]}}, "lora_keys", ["self_attn.q_proj"]),
        ({"lr_schedule": {"name": "cosine_decay", "warmup": 5, "arguments": [1e-4, 100]}}, "warmup_steps", 5),
        ({"lr_schedule": {"name": "cosine_decay", "arguments": ["1e-4", 100]}}, "learning_rate", 1e-4),
        ({"report_to": "wandb, swanlab"}, "report_to", ["wandb", "swanlab"]),
        ({}, "max_grad_norm", 0.0),
    ],
)
def test_values_mean_the_same(table: dict[str, Any], key: str, value: Any) -> None:
    """
    Also where PyYAML reads a number as text, and where a default of ours differs.
    """
    assert value == train_of(**table)[key]


def test_prompts_are_trained_on_unless_they_are_masked() -> None:
    """
    mlx-lm's default; all layers are -1 there.
    """
    assert ("everything", "all") == (train_of(mask_prompt=False)["train_on"], train_of(num_layers=-1)["num_layers"])
    assert "train_on" not in train_of(mask_prompt=True)


@pytest.mark.parametrize(
    ("table", "note"),
    [
        ({"optimizer": "rmsprop"}, "optimizer: 'rmsprop' is none of mlx-lm 0.32, and AdamW here"),
        ({"optimizer": "adafactor"}, "optimizer: adafactor takes train.learning_rate here, and in mlx-lm steps of "),
        (
            {"optimizer_config": {"adam": {"betas": [0.9, 0.98]}}},
            "optimizer_config.adam.betas: a recipe has no such key (docs/optimizers.md)",
        ),
        ({"lr_schedule": {"name": "step_decay", "arguments": [1]}}, "lr_schedule: 'step_decay' has no place; the "),
        ({"test_batches": 3}, "test_batches: every test row is evaluated"),
        ({"itres": 3}, "itres: mlx-lm 0.32 has no such key"),
    ],
)
def test_what_has_no_place_is_named(table: dict[str, Any], note: str) -> None:
    """
    Nobody should believe that a setting was taken over.
    """
    assert notes_of(**table)[0].startswith(note)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("iters: many\n", "iters: must be a whole number, is 'many'"),
        ("learning_rate: fast\n", "learning_rate: must be a number, is 'fast'"),
        ("fine_tune_type: full\n", "fine_tune_type: is 'full', and a recipe trains an adapter"),
        ("model: [1]\n", "model: must be a text, is [1]"),
        ("lora_parameters: 8\n", "lora_parameters: must be a table, is 8"),
        ("- 1\n", "is no table of keys"),
        ("a: [\n", "is not YAML: "),
        ("a: !!python/object/apply:os.system [echo]\n", "is not YAML: could not determine a constructor"),
        ("a: &x [1]\nb: [*x, *x]\n", "has an alias (*name)"),
        ("x" * (2 << 20), "is larger than 1 MB"),
        ("[" * 100_000, "is nested more than 32 levels deep"),
        ("a:\n" + "".join(f"{' ' * depth}- b:\n" for depth in range(1, 400, 2)), "is nested more than 32 levels deep"),
    ],
)
def test_a_wrong_file_is_named(tmp_path: Path, text: str, message: str) -> None:
    """
    YAML of somebody else is data: it makes no object and takes neither memory nor time.
    """
    path = tmp_path / "lora.yaml"
    path.write_text(text)

    with pytest.raises(ThunderError) as error:
        mlx_lm_config.read(path)

    assert message in str(error.value)
    assert str(error.value).startswith(str(path))
