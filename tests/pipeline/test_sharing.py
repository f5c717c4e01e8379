"""An adapter for other programs: fused into its base, and as PEFT keeps it."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.helpers import recipes
from tests.helpers.project_copy import Copy
from thunder_train import ThunderError
from thunder_train.core import files
from thunder_train.pipeline import sharing

CONFIG = {"fine_tune_type": "lora", "num_layers": 2, "lora_parameters": {"rank": 2, "scale": 10.0, "dropout": 0.1}}


def adapter(root: Path, *modules: str) -> None:
    """The adapter of the recipe smoke, with these modules."""
    folder = root / "runs/smoke/adapter"
    folder.mkdir(parents=True, exist_ok=True)
    numbers = np.arange(12, dtype=np.float32)
    tensors = {
        f"{name}.{part}": numbers.reshape(6, 2).T.copy() if part == "lora_b" else numbers.reshape(6, 2)
        for name in modules
        for part in ("lora_a", "lora_b")
    }
    save_file(tensors, folder / "adapters.safetensors")
    files.write_json(folder / "adapter_config.json", CONFIG)


def test_peft_gets_transposed_matrices_and_alpha(tmp_path: Path) -> None:
    """
    mlx-lm adds scale (x A) B, PEFT lora_alpha / r (B A x).
    """
    recipe = recipes.finished(tmp_path)
    modules = [f"model.layers.{number}.self_attn.{name}_proj" for number in (4, 5) for name in "qv"]
    adapter(tmp_path, *modules)

    exported = sharing.export(recipe, tmp_path, "owner/base")
    config = json.loads((tmp_path / "runs/smoke/peft/adapter_config.json").read_text())
    tensors = load_file(tmp_path / "runs/smoke/peft/adapter_model.safetensors")

    assert ("thunder.exported/1", 4) == (exported["schema"], exported["modules"])
    assert (2, 20.0, "owner/base") == (config["r"], config["lora_alpha"], config["base_model_name_or_path"])
    assert (["self_attn.q_proj", "self_attn.v_proj"], [4, 5]) == (
        config["target_modules"],
        config["layers_to_transform"],
    )
    name = "base_model.model.model.layers.5.self_attn.v_proj.lora_A.weight"
    assert (2, 6) == tensors[name].shape
    assert [0.0, 2.0, 4.0] == tensors[name][0, :3].tolist()
    assert (tmp_path / "runs/smoke/peft/README.md").read_text().startswith('---\nlibrary_name: "peft"\n')


@pytest.mark.parametrize("other", ["model.layers.5.mlp.up_proj", "lm_head"])
def test_layers_of_different_modules_are_named_one_by_one(tmp_path: Path, other: str) -> None:
    """
    Otherwise PEFT would adapt layers that the training left alone. The output layer belongs to none of them.
    """
    modules = sorted(["model.layers.4.self_attn.q_proj", other])
    recipe = recipes.finished(tmp_path)
    adapter(tmp_path, *modules)

    sharing.export(recipe, tmp_path, "")

    config = json.loads((tmp_path / "runs/smoke/peft/adapter_config.json").read_text())
    assert modules == config["target_modules"]
    assert "layers_to_transform" not in config


def test_what_transformers_has_not_is_refused(tmp_path: Path) -> None:
    """
    mlx-lm stacks experts into one layer, which has no counterpart there.
    """
    recipe = recipes.finished(tmp_path)
    adapter(tmp_path, "model.layers.4.mlp.switch_mlp.experts_all")

    with pytest.raises(ThunderError, match=r"adapts model\.layers\.4\.mlp\.switch_mlp\.experts_all, for which"):
        sharing.export(recipe, tmp_path, "")

    assert not (tmp_path / "runs/smoke/peft").exists()


@pytest.mark.ranks
def test_a_fused_folder_answers_as_base_and_adapter(project: Copy) -> None:
    """
    It is read from disk by mlx-lm before it is believed, and replaces an older one.
    """
    for _ in range(2):
        done = project.doit("fuse:smoke")
        assert 0 == done.status, done.output
    folder = project.path / "runs/smoke/fused"

    assert "it keeps 100.0% of the adapter's effect" in done.output
    assert {"model.safetensors", "config.json", "tokenizer.json", "README.md"} <= {
        each.name for each in folder.iterdir()
    }
    assert "adapter in its weights" in (folder / "README.md").read_text()
    assert [] == [*(project.path / ".thunder/fused").glob("*")]
    exported = json.loads(project.doit("export:smoke", "--json").output.splitlines()[-1])
    assert "runs/smoke/peft" == exported["folder"]
