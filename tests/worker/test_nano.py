"""The bundled base model."""

import json

import pytest

from thunder_train import ThunderError
from thunder_train.core import files

pytestmark = pytest.mark.mlx


def shape(**changed):
    from thunder_train.worker.nano import Shape

    return Shape(**({"layers": 2, "width": 32, "heads": 2, "kv_heads": 1, "hidden": 48} | changed))


def test_the_same_seed_gives_the_same_bytes(tmp_path):
    """
    A committed model lock must hold for a fresh clone, so the model is made to the byte.
    """
    from thunder_train.worker import nano

    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        nano.write(tmp_path / name, shape(), seed)
    names = sorted(path.name for path in (tmp_path / "a").iterdir())

    assert [files.sha256(tmp_path / "a" / name) for name in names] == [
        files.sha256(tmp_path / "b" / name) for name in names
    ]
    assert files.sha256(tmp_path / "a/model.safetensors") != files.sha256(tmp_path / "c/model.safetensors")


def test_drawn_weights_never_change():
    """
    The numbers come from shake-256, not from a library's generator that a new release may alter.
    """
    from thunder_train.worker.nano import draw

    expected = [0.35589152574539185, -0.4597155749797821, -0.5464314222335815, 0.5167574882507324]
    assert expected == draw("0:x", (1, 4))[0].tolist()


def test_mlx_lm_loads_it_with_float32_weights(folder):
    """
    It is an mlx-lm folder like any other; half precision would be slow on a CPU.
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


def test_every_nko_letter_is_one_token_and_any_text_comes_back(tokenizer):
    """
    One token per code point keeps the CER and the loss on the same unit; unknown characters fall back to bytes.
    """
    nko = "".join(chr(code) for code in range(0x7C0, 0x800))

    assert 64 == len(tokenizer.encode(nko))
    assert "ߞߋ é 😀\n" == tokenizer.decode(tokenizer.encode("ߞߋ é 😀\n"))


def test_the_chat_template_is_gemma_like(tokenizer):
    """
    Turns, the role names and one <bos>, as in the models it stands in for.
    """
    messages = [{"role": "system", "content": "S"}, {"role": "user", "content": "U"}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)

    expected = "<bos><start_of_turn>system\nS<end_of_turn>\n<start_of_turn>user\nU<end_of_turn>\n<start_of_turn>model\n"
    assert expected == text


def test_impossible_shapes_are_refused(tmp_path):
    """
    Every problem at once, before anything is written.
    """
    from thunder_train.worker import nano

    with pytest.raises(ThunderError) as caught:
        nano.write(tmp_path / "a", shape(width=30, heads=4, kv_heads=3), seed=0)

    assert "--width: must be a multiple of 2 x 4 heads, not 30\n--kv-heads: must divide 4 heads, not 3" == str(
        caught.value
    )
    assert not (tmp_path / "a").exists()
