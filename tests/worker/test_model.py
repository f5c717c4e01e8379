"""LoRA on a frozen base."""

import contextlib
import json
import shutil
from pathlib import Path
from typing import Any

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


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer.json", "[]"),
        ("tokenizer.json", '{"model": {"type": "BPE", "vocab": 7}}'),
        ("tokenizer.json", "\x00"),
        ("config.json", '{"model_type": "cache"}'),
        ("config.json", '{"model_type": "no_such"}'),
        ("config.json", "{}"),
        ("config.json", '{"model_type": "gemma3_text", "num_hidden_layers": 2}'),
        ("config.json", "[]"),
        ("tokenizer_config.json", '{"tool_parser_type": "no_such"}'),
        ("tokenizer_config.json", '{"chat_template_type": "no_such"}'),
    ],
)
def test_whatever_a_library_raises_for_a_model_is_one_line(
    folder: Path, tmp_path: Path, name: str, content: str
) -> None:
    """
    mlx-lm, transformers and tokenizers raise a dozen kinds, and a panic that is no Exception.
    """
    from thunder_train.worker import model

    shutil.copytree(folder / "nano", tmp_path / "m")
    (tmp_path / "m" / name).write_text(content)

    with pytest.raises(ThunderError) as caught:
        model.load(str(tmp_path / "m"), "")
    assert 1 == len(str(caught.value).splitlines())


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("config.json", {"model_file": "evil.py"}),
        ("config.json", {"auto_map": {"AutoConfig": "evil.X", "AutoModelForCausalLM": "evil.X"}}),
        ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["evil.X", None]}, "tokenizer_class": "X"}),
    ],
)
def test_a_folder_with_code_runs_nothing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, keys: dict[str, Any]
) -> None:
    """
    Neither our check nor, without it, the libraries run a program that comes with the weights.
    """
    from thunder_train.worker import model

    place, ran = shutil.copytree(folder / "nano", tmp_path / "m"), tmp_path / "ran"
    (place / "evil.py").write_text(f"open({str(ran)!r}, 'w')\nclass X: pass\n")
    (place / name).write_text(json.dumps(json.loads((place / name).read_text()) | keys))

    with pytest.raises(ThunderError, match="which Thunder Train never runs"):
        model.load(str(place), "")
    monkeypatch.setattr("thunder_train.core.model_files.problems", lambda *_: [])
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    with contextlib.suppress(ThunderError):
        model.load(str(place), "")
    assert not ran.exists()
