"""The model card of an adapter."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.helpers import recipes
from thunder_train.core import files, hub_cache
from thunder_train.report import model_card


def test_a_card_names_base_data_and_scores(tmp_path: Path) -> None:
    """
    A colleague knows what it is for and how to load it; no path or time of this machine is in it.
    """
    recipe = recipes.finished(tmp_path)

    card = model_card.card(recipe, tmp_path)

    assert card.startswith('---\nlibrary_name: "mlx"\npipeline_tag: "text-generation"\ntags: ["mlx", "lora", ')
    assert "A LoRA adapter for the base model nano." in card
    assert "mlx_lm.generate --model BASE --adapter-path FOLDER" in card
    assert "| adapter_gated | " in card
    assert str(tmp_path) not in card


def test_texts_of_a_recipe_cannot_become_markup(tmp_path: Path) -> None:
    """
    The hub shows the card as a page.
    """
    recipe = replace(recipes.finished(tmp_path), description="<script>x</script> [a](b)")

    card = model_card.card(recipe, tmp_path)

    assert "<script>" not in card
    assert "[a](b)" not in card


@pytest.mark.parametrize(
    ("text", "licence"),
    [
        ("---\nlicense: apache-2.0\ntags:\n- x\n---\n# A\n", "apache-2.0"),
        ("---\r\nlibrary_name: mlx\r\nlicense: gemma\r\n---\r\n", "gemma"),
        ("---\nlicense: {a: b}\n---\n", ""),
        ("license: mit\n", ""),
        ("", ""),
    ],
)
def test_the_licence_is_the_one_that_the_bases_card_states(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, licence: str
) -> None:
    """
    An adapter is made from its base, whose terms go with it; nothing is guessed.
    """
    recipe = recipes.finished(tmp_path)
    recipe = replace(recipe, model=replace(recipe.model, kind="hub", repo="owner/base"))
    lock = tmp_path / "runs/models/nano/model.lock.json"
    files.write_json(lock, {**files.read_json(lock), "commit": "0" * 40})
    monkeypatch.setattr(hub_cache, "snapshot_here", lambda *_: tmp_path / "base")
    (tmp_path / "base").mkdir()
    (tmp_path / "base/README.md").write_bytes(text.encode())

    card = model_card.card(recipe, tmp_path)

    assert 'base_model: "owner/base"\n' in card
    assert (f'license: "{licence}"\n' in card) == bool(licence)
    assert ("license" in card) == bool(licence)
