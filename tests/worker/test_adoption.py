"""An adapter that mlx-lm or PEFT wrote is taken whole or refused by what does not fit."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from thunder_train import ThunderError
from thunder_train.pipeline import sharing
from thunder_train.worker import adoption, model
from thunder_train.worker.adapter import write_adapter
from thunder_train.worker.model import Lora

Change = Callable[[dict[str, Any], dict[str, Any]], Any]
EMBEDDING = "base_model.model.model.embed_tokens.lora_embedding_A"
Q = "base_model.model.model.layers.{}.self_attn.q_proj.lora_{}.weight"


@pytest.fixture
def nano_files(folder: Path) -> Path:
    """The nano base."""
    return folder / "nano"


@pytest.fixture
def trained(nano_files: Path, tmp_path: Path) -> Path:
    """An adapter on the last two layers of the nano model, in mlx-lm's form."""
    network, _ = model.load(str(nano_files), "")
    lora = Lora(2, 2, 10.0, keys=("self_attn.q_proj", "self_attn.v_proj"))
    model.add_lora(network, lora, seed=0)
    drawn = np.random.default_rng(0)
    tensors = {
        name: drawn.normal(size=tensor.shape).astype(np.float32)
        for name, tensor in model.adapter_tensors(network).items()
    }
    write_adapter(tmp_path / "mlx", tensors, lora, "nano")
    return tmp_path / "mlx"


@pytest.fixture
def exported(trained: Path) -> Path:
    """The same in PEFT's form."""
    folder = trained.parent / "peft"
    folder.mkdir()
    tensors = load_file(trained / "adapters.safetensors")
    config = json.loads((trained / "adapter_config.json").read_text())
    modules = sorted({name.rpartition(".")[0] for name in tensors})
    save_file(sharing.peft_tensors(tensors), folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps(sharing.peft_config(config, modules, "nano")))
    return folder


def edited(folder: Path, change: Change) -> Path:
    """The folder after a change of its config and tensors."""
    weights, config = next(folder.glob("*.safetensors")), folder / "adapter_config.json"
    table, tensors = json.loads(config.read_text()), load_file(weights)
    change(table, tensors)
    config.write_text(json.dumps(table))
    save_file(tensors, weights)
    return folder


def adopted(source: Path, base: Path) -> dict[str, Any]:
    """The tensors that a training would have left."""
    adoption.adopt(source, str(base), "", source.parent / "out")
    return load_file(source.parent / "out/adapters.safetensors")


@pytest.mark.parametrize("form", ["trained", "exported"])
def test_both_forms_give_the_tensors_that_were_trained(
    request: pytest.FixtureRequest, trained: Path, nano_files: Path, form: str
) -> None:
    """
    PEFT keeps the matrices transposed, under other names, and alpha in place of the scale.
    """
    adopted(request.getfixturevalue(form), nano_files)

    before, after = trained, trained.parent / "out"
    assert (before / "adapters.safetensors").read_bytes() == (after / "adapters.safetensors").read_bytes()
    config = json.loads((after / "adapter_config.json").read_text())
    assert (2, 2, 10.0) == (config["num_layers"], config["lora_parameters"]["rank"], config["lora_parameters"]["scale"])
    done = json.loads((after / "done.json").read_text())
    assert [] == done["losses"]["train"]
    assert 2 == len(done["imported"]["files"])


@pytest.mark.parametrize("keys", [("lm_head",), ("lm_head", "self_attn.q_proj")])
def test_an_adapter_of_the_output_layer_is_taken_in_both_forms(tmp_path: Path, keys: tuple[str, ...]) -> None:
    """
    It belongs to no layer by number, and may be all that PEFT trained.
    """
    from tests.helpers import model_folders

    base = model_folders.make(tmp_path / "untied", "llama")
    network, _ = model.load(str(base), "")
    lora = Lora(1, 2, 10.0, keys=keys)
    model.add_lora(network, model.resolved(network, lora), seed=0)
    tensors = {name: np.array(tensor) + 1 for name, tensor in model.adapter_tensors(network).items()}
    write_adapter(tmp_path / "mlx", tensors, lora, "base")
    (tmp_path / "peft").mkdir()
    config = json.loads((tmp_path / "mlx/adapter_config.json").read_text())
    modules = sorted({name.rpartition(".")[0] for name in tensors})
    save_file(sharing.peft_tensors(tensors), tmp_path / "peft/adapter_model.safetensors")
    (tmp_path / "peft/adapter_config.json").write_text(json.dumps(sharing.peft_config(config, modules, "base")))

    for form in ("mlx", "peft"):
        taken = adopted(tmp_path / form, base)
        assert set(tensors) == set(taken)
        assert all((tensors[name] == taken[name]).all() for name in tensors)


def test_a_layer_that_peft_left_out_does_nothing(exported: Path, nano_files: Path) -> None:
    """
    mlx-lm adapts the same modules in each of the last layers; a random half would change the answers.
    """
    last = max(int(re.findall(r"layers\.(\d+)", name)[0]) for name in load_file(exported / "adapter_model.safetensors"))

    def change(_: Any, tensors: dict[str, Any]) -> None:
        for part in "AB":
            del tensors[Q.format(last, part)]

    tensors = adopted(edited(exported, change), nano_files)

    assert not tensors[f"model.layers.{last}.self_attn.q_proj.lora_b"].any()
    assert tensors[f"model.layers.{last - 1}.self_attn.q_proj.lora_b"].any()


def test_rslora_divides_by_the_root_of_the_rank(exported: Path, nano_files: Path) -> None:
    """
    Its scale is alpha / sqrt(r): read as alpha / r the adapter would be too weak.
    """
    adopted(edited(exported, lambda config, _: config.update(use_rslora=True, lora_alpha=8.0, r=2)), nano_files)

    config = json.loads((exported.parent / "out/adapter_config.json").read_text())
    assert 5.656854249 == pytest.approx(config["lora_parameters"]["scale"])


WRONG: dict[str, tuple[Change, str]] = {
    "bias": (lambda config, _: config.update(bias="all"), "adapter_config.json: bias: is not supported"),
    "another method": (
        lambda config, _: config.update(peft_type="IA3"),
        "adapter_config.json: peft_type: invalid",
    ),
    "rank pattern": (lambda config, _: config.update(rank_pattern={"q_proj": 4}), "rank_pattern: is not supported"),
    "saved modules": (
        lambda config, _: config.update(modules_to_save=["lm_head"]),
        "modules_to_save: is not",
    ),
    "other rank": (lambda config, _: config.update(r=4), "does not fit the base: "),
    "embedding": (
        lambda _, tensors: tensors.update(
            {"base_model.model.model.embed_tokens.lora_embedding_A": np.ones((2, 4), np.float32)}
        ),
        f"has a tensor '{EMBEDDING}', which is no LoRA",
    ),
    "a layer too many": (
        lambda _, tensors: tensors.update({Q.format(99, "A"): np.ones((2, 4), np.float32)}),
        "'layers.99.self_attn.q_proj.lora_a' belongs to no layer of the base",
    ),
    "unknown module": (
        lambda _, tensors: tensors.update({Q.format(1, "A").replace("q_proj", "qx_proj"): np.ones((2, 4), np.float32)}),
        "no layer is called 'self_attn.qx_proj'",
    ),
    "half": (lambda _, tensors: tensors.pop(sorted(tensors)[0]), "is missing"),
}


@pytest.mark.parametrize("case", sorted(WRONG))
def test_what_an_adapter_of_this_base_cannot_hold_is_refused(exported: Path, nano_files: Path, case: str) -> None:
    """
    Left out silently it would be evaluated as another adapter than the one that was trained.
    """
    change, expected = WRONG[case]
    edited(exported, change)

    with pytest.raises(ThunderError, match=re.escape(expected)):
        adopted(exported, nano_files)
    assert not (exported.parent / "out").exists()


def test_full_weights_are_no_adapter(trained: Path, nano_files: Path) -> None:
    """
    mlx-lm keeps them in a folder of the same form.
    """
    edited(trained, lambda config, _: config.update(fine_tune_type="full"))

    with pytest.raises(ThunderError, match="is 'full': no adapter, but weights of the base"):
        adopted(trained, nano_files)
