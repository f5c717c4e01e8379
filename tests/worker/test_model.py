"""LoRA on a frozen base."""

from pathlib import Path

import pytest

from thunder_train import ThunderError

pytestmark = pytest.mark.mlx


def test_only_lora_leaves_of_the_last_layers_are_trained(folder: Path) -> None:
    """
    Norms and base weights must stay as they are: they are not saved with the adapter.
    """
    from thunder_train.worker import model

    loaded, _ = model.load(str(folder / "nano"), "")
    model.add_lora(loaded, model.Lora(num_layers=1, rank=4, keys=("self_attn.q_proj",)), seed=0)

    expected = ["model.layers.1.self_attn.q_proj.lora_a", "model.layers.1.self_attn.q_proj.lora_b"]
    assert expected == list(model.trainable(loaded))


def test_the_same_seed_starts_the_same_adapter_on_every_rank(folder: Path) -> None:
    """
    Ranks exchange gradients, never weights, so they must start with the same adapter.
    """
    from thunder_train.worker import adapter, model

    digests = []
    for seed in (0, 0, 1):
        loaded, _ = model.load(str(folder / "nano"), "")
        model.add_lora(loaded, model.Lora(num_layers=1, rank=4), seed)
        digests.append(adapter.tensor_digest(model.adapter_tensors(loaded)))

    assert digests[0] == digests[1] != digests[2]


def test_layers_and_keys_that_do_not_exist_are_refused_together(folder: Path) -> None:
    """
    mlx-lm reads 0 layers as all layers, and ignores unknown keys silently.
    """
    from thunder_train.worker import model

    loaded, _ = model.load(str(folder / "nano"), "")
    with pytest.raises(ThunderError) as caught:
        model.add_lora(loaded, model.Lora(num_layers=3, rank=4, keys=("self_attn.qproj",)), seed=0)

    expected = [
        "--num-layers: must be from 1 to the model's 2 layers, not 3",
        "--lora-keys: no layer is called 'self_attn.qproj'; did you mean 'self_attn.q_proj'?",
    ]
    assert expected == str(caught.value).split("\n")


def test_a_missing_model_is_one_clean_line() -> None:
    """
    Training machines are offline as a rule; the hint says how to download the model.
    """
    from thunder_train.worker import model

    with pytest.raises(ThunderError) as caught:
        model.load("nobody/nothing", "")

    expected = "--model nobody/nothing: is neither a folder nor in the hub cache; run `./doit model` on this machine"
    assert expected == str(caught.value)
