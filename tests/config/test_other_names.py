"""What a recipe says of keys that other trainers have."""

import pytest

from thunder_train.config import fields, other_names, validate
from thunder_train.config.project import RecipeFile
from thunder_train.config.train import Train

KEYS = {key for table in (fields.table(RecipeFile), fields.table(Train)) for key in table}


def problems(key: str) -> str:
    """The error of a [train] table with this key."""
    recipe = {"model": "m", "dataset": "d", "train": {"num_iters": 1, key: 1}}
    return str(validate.check(recipe, RecipeFile, "recipes/a.toml")[1][0])


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("lora_layers", 'write num_layers under [train]; mlx-lm\'s -1 is "all"'),
        ("iters", "write num_iters under [train], counted in updates: mlx-lm's iters / grad_accumulation_steps"),
        ("max-seq-length", "write max_seq_len under [train]"),
        ("fine-tune-type", "write fine_tune_type under [train]"),
        ("micro_batch_size", "write batch_size under [train], rows per rank; or global_batch_size, rows of all ranks"),
        ("val_batches", "write eval_rows under [train], in rows; left out: all validation rows"),
    ],
)
def test_a_key_of_another_trainer_is_answered_with_ours(key: str, hint: str) -> None:
    """
    The most similar word would often be a wrong one: lora_keys for lora_layers.
    """
    assert f"recipes/a.toml: train.{key}: unknown key {key!r}; {hint}" == problems(key)


def test_every_key_of_mlx_lm_has_an_answer() -> None:
    """
    Its users are the first to come. A key that we have by the same name needs none.
    """
    from mlx_lm import lora

    assert [] == [key for key in lora.CONFIG_DEFAULTS if not other_names.hint(key) and key not in KEYS]


def test_every_key_that_an_answer_names_exists() -> None:
    """
    A key that was renamed must not live on in a hint.
    """
    words = " ".join(other_names.HINTS.values())
    named = {word for word in words.replace(",", " ").replace(";", " ").split() if "_" in word and word.isidentifier()}

    theirs = {"chat_template", "grad_accumulation_steps", "q_proj", "v_proj", "lora_r", "mlx_lm"}
    assert set() == named - KEYS - theirs
