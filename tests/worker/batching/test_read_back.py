"""Answers whose tokens are not the answers."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.chat_templates import TEMPLATES
from tests.worker.conftest import write_rows
from thunder_train import ThunderError

pytestmark = pytest.mark.mlx

Refusal = Callable[..., str]


def chat_row(number: int, answer: str) -> dict[str, Any]:
    """A row with an answer."""
    messages = [{"role": "user", "content": "ab"}, {"role": "assistant", "content": answer}]
    return {"id": f"row-{number}", "messages": messages}


@pytest.fixture
def refusal(folder: Path, tmp_path: Path) -> Refusal:
    """A function: answers and changes of tokenizer.json -> what the training says of them, "" if nothing."""
    from mlx_lm.utils import load_tokenizer

    from thunder_train.worker.batching import tokens
    from thunder_train.worker.chat import Chat

    def refusal(answers: list[str], model: dict[str, Any] | None = None, **changes: Any) -> str:
        content = json.loads((folder / "nano" / "tokenizer.json").read_text())
        content |= changes
        content["model"] |= model or {}
        config = json.loads((folder / "nano" / "tokenizer_config.json").read_text())
        (tmp_path / "tokenizer.json").write_text(json.dumps(content))
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
        tokenizer = load_tokenizer(tmp_path, eos_token_ids=[5])
        rows = write_rows(tmp_path / "rows.jsonl", [chat_row(i, answer) for i, answer in enumerate(answers)])
        try:
            tokens.read_all(rows, Chat(tokenizer, TEMPLATES["turns"]))
        except ThunderError as error:
            return str(error).removeprefix(f"{rows}: ")
        return ""

    return refusal


def test_letters_that_become_unknown_are_refused_with_code_points_and_rows(refusal: Refusal) -> None:
    """
    Such a training looks better than an honest one: <unk> is easy to predict.
    """
    expected = (
        "the tokenizer knows no token for letters and gives <unk>, in the answers of 2 rows: row-0, row-2; "
        "lost: ɛ \\u025b (2), ɔ \\u0254 (1); use a base model whose vocabulary has the script"
    )

    assert expected == refusal(["ߞɛ", "ߞ", "ɛɔ"], model={"byte_fallback": False})
    assert "" == refusal(["ߞɛ", "ߞ", "ɛɔ"])  # as bytes they are kept


def test_letters_without_any_token_are_refused(refusal: Refusal) -> None:
    """
    A vocabulary without <unk> drops them.
    """
    said = refusal(["ߞɛ", "ߞ"], model={"byte_fallback": False, "unk_token": None})

    assert said.startswith(
        "the tokenizer gives no token for letters, in the answers of 1 row: row-0; lost: ɛ \\u025b (1);"
    )


@pytest.mark.parametrize(
    ("changes", "answer", "lost"),
    [
        ({"type": "Lowercase"}, "Aa", "A \\u0041 (1)"),
        ({"type": "NFKC"}, "\ufb01", "\ufb01 \\ufb01 (1)"),
        ({"type": "NFD"}, "", ""),
        ({"type": "Replace", "pattern": {"Regex": " +"}, "content": " "}, "x   y", "\\u0020 (2)"),
    ],
)
def test_a_normalizer_that_changes_letters_is_refused(
    refusal: Refusal, changes: dict[str, Any], answer: str, lost: str
) -> None:
    """
    The model could never write the answer as it is. Other forms of the same letter (NFC, NFD) change nothing.
    """
    said = refusal([answer or "e\u0301 \u00e9"], normalizer=changes)

    if lost:
        assert said.startswith("the tokenizer's normalizer changes letters, in the answers of 1 row: row-0; ")
        assert f"lost: {lost}" in said
    else:
        assert "" == said


def test_tokens_that_are_decoded_otherwise_are_refused(refusal: Refusal) -> None:
    """
    Without a decoder, blanks come between tokens: so would they in every answer of the model.
    """
    said = refusal(["abc"], decoder=None)

    assert said.startswith(
        "the tokenizer's tokens are decoded as other text, in the answers of 1 row: row-0; instead: "
    )
    assert "\\u0020" in said


def test_thousands_of_rows_are_one_message(refusal: Refusal) -> None:
    """
    With the number of rows and the most frequent letters.
    """
    said = refusal([f"ߞ{chr(0x250 + i % 30)}" for i in range(1500)], model={"byte_fallback": False})

    assert 1 == len(said.splitlines())
    assert "in the answers of 1,500 rows: row-0, row-1, row-2, row-3, row-4 and 1,495 more; lost: " in said
    assert " and 20 more; use" in said


def test_sentencepiece_s_first_blank_is_no_difference(refusal: Refusal) -> None:
    """
    It puts one before every text and takes it away again, whoever asks.
    """
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}
    normalizer = {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "\u2581"}, replace]}
    back = {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "}
    strip = {"type": "Strip", "content": " ", "start": 1, "stop": 0}
    decoder = {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"}, back, strip]}

    assert "" == refusal(["a b", "ߞ ߊ"], normalizer=normalizer, decoder=decoder)


def test_a_class_that_is_not_the_model_s_is_refused_with_the_edit_that_helps(folder: Path, tmp_path: Path) -> None:
    """
    For model_type qwen3_5 transformers takes a class of its own, whatever the folder names, and replaces how text is
    parted into words: the base would read tokens that it never saw.
    """
    from mlx_lm.utils import load_tokenizer

    from thunder_train.worker.batching import tokens
    from thunder_train.worker.chat import Chat

    content = json.loads((folder / "nano" / "tokenizer.json").read_text())
    config = json.loads((folder / "nano" / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen3_5"}))
    second = chat_row(2, "x")
    second["messages"][0]["content"] = "a  b 12"
    rows = write_rows(tmp_path / "rows.jsonl", [chat_row(1, "ߞߊ"), second])
    forced = {"tokenizer_class": "TokenizersBackend", "auto_map": {"AutoTokenizer": [None, "TokenizersBackend"]}}
    said = []
    for edit in ({}, forced):
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(config | edit))
        tokenizer = load_tokenizer(tmp_path, {"trust_remote_code": False}, eos_token_ids=[5])
        try:
            tokens.read_all(rows, Chat(tokenizer, TEMPLATES["turns"]))
            said.append("")
        except ThunderError as error:
            said.append(str(error))

    assert (
        "transformers loads the tokenizer as Qwen3_5Tokenizer, which gives other tokens than tokenizer.json" in said[0]
    )
    assert "tokenizer.json, in 2 rows: row-1, row-2; write" in said[0]
    assert said[0].endswith(f"write {json.dumps(forced)[1:-1]} into tokenizer_config.json")
    assert "" == said[1]
