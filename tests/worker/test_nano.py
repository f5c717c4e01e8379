"""The generated nano model."""

import json
from pathlib import Path
from typing import Any

import pytest

from thunder_train import ThunderError
from thunder_train.core import files
from thunder_train.worker import nano
from thunder_train.worker.nano import Shape

pytestmark = pytest.mark.mlx


def shape(**changed: int) -> Shape:
    """A small shape, some sizes changed."""
    return Shape(**({"layers": 2, "width": 32, "heads": 2, "kv_heads": 1, "hidden": 48} | changed))


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    """
    A committed model lock must match in a fresh clone, so every byte is reproducible.
    """
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        nano.write(tmp_path / name, shape(), seed)
    names = sorted(path.name for path in (tmp_path / "a").iterdir())

    assert [files.sha256(tmp_path / "a" / name) for name in names] == [
        files.sha256(tmp_path / "b" / name) for name in names
    ]
    assert files.sha256(tmp_path / "a/model.safetensors") != files.sha256(tmp_path / "c/model.safetensors")


def test_drawn_weights_never_change() -> None:
    """
    The numbers come from SHAKE-256 and not from a library's generator, which a new release may change.
    """
    expected = [0.35589152574539185, -0.4597155749797821, -0.5464314222335815, 0.5167574882507324]
    assert expected == nano.draw("0:x", (1, 4))[0].tolist()


def test_mlx_lm_loads_it_with_float32_weights(folder: Path) -> None:
    """
    The folder is a normal mlx-lm model; half precision would be slow on a CPU.
    """
    import mlx.core as mx
    from mlx.utils import tree_flatten

    from thunder_train.worker.model import load, parameters

    model, tokenizer = load(str(folder / "nano"), "")
    expected = json.loads((folder / "nano/config.json").read_text())["vocab_size"]

    assert {mx.float32} == {leaf.dtype for _, leaf in tree_flatten(model.parameters())}
    assert expected == model(mx.array([[2, 4]])).shape[-1]
    assert {5} == tokenizer.eos_token_ids
    assert 29664 == parameters(model)


def test_every_nko_letter_is_one_token_and_any_text_can_be_decoded(tokenizer: Any) -> None:
    """
    With one token per code point, CER and loss have the same unit; other characters become bytes.
    """
    nko = "".join(chr(code) for code in range(0x7C0, 0x800))

    assert 64 == len(tokenizer.encode(nko))
    assert "ߞߋ é 😀\n" == tokenizer.decode(tokenizer.encode("ߞߋ é 😀\n"))


def test_the_chat_template_is_gemma_like(tokenizer: Any) -> None:
    """
    Turns, role names and one <bos>, as in the models that nano replaces in tests.
    """
    messages = [{"role": "system", "content": "S"}, {"role": "user", "content": "U"}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)

    expected = "<bos><start_of_turn>system\nS<end_of_turn>\n<start_of_turn>user\nU<end_of_turn>\n<start_of_turn>model\n"
    assert expected == text


def test_impossible_shapes_are_refused(tmp_path: Path) -> None:
    """
    All problems at once, before anything is written.
    """
    with pytest.raises(ThunderError) as caught:
        nano.write(tmp_path / "a", shape(width=30, heads=4, kv_heads=3), seed=0)

    assert "--width: must be a multiple of 2 x 4 heads, not 30\n--kv-heads: must divide 4 heads, not 3" == str(
        caught.value
    )
    assert not (tmp_path / "a").exists()
