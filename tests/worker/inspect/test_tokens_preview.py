"""The preview of a row, token by token."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

if TYPE_CHECKING:
    from thunder_train.worker.inspect.tokens import Piece

pytestmark = pytest.mark.mlx

Preview = Callable[..., str]


@pytest.fixture
def pieces(tokenizer: Any) -> "Callable[..., list[Piece]]":
    """A function: alternating user and assistant messages -> the row in pieces, every answer a target."""
    from thunder_train.worker.batching.tokens import example
    from thunder_train.worker.chat import Chat
    from thunder_train.worker.inspect import tokens

    def pieces(*contents: str) -> "list[Piece]":
        messages = [{"role": ("user", "assistant")[i % 2], "content": each} for i, each in enumerate(contents)]
        return tokens.pieces(example({"messages": messages}, Chat(tokenizer), "x:1", "all"), tokenizer)

    return pieces


@pytest.fixture
def preview(pieces: "Callable[..., list[Piece]]") -> Preview:
    """A function: alternating user and assistant messages -> lines of the preview."""
    from thunder_train.worker.inspect import tokens

    return lambda *contents, width=200: "\n".join(tokens.preview(pieces(*contents), width))


def test_trained_tokens_are_in_brackets(preview: Preview) -> None:
    """
    Special tokens are visible, each token is separate, letters beyond ASCII have their code points beside them.
    """
    expected = (
        r"  t0  <bos>|<start_of_turn>|u|s|e|r|\n|ߊ\u07ca|␣|x|<end_of_turn>|\n|<start_of_turn>|m|o|d|e|l|\n|[[ߊ\u07ca"
        "\n"
        r"  t20  ◌߫\u07eb|<end_of_turn>]]|\n|<start_of_turn>|u|s|e|r|\n|y|<end_of_turn>|\n|<start_of_turn>|m|o|d|e|l"
        "\n"
        r"  t38  \n|[[o|k|<end_of_turn>]]"
    )
    assert expected == preview("ߊ x", "ߊ߫", "y", "ok", width=106)


def test_a_hidden_or_confusing_character_is_an_escape(preview: Preview) -> None:
    """
    Data must not reorder the page, break a line, or look like a separator or a bracket.
    """
    shown = preview("q", "a\u202e\n\t|[]\\\u200f").partition("[[")[2]

    assert r"a|\u202e·3|\n|\t|\||\[|\]|\\|\u200f·3|<end_of_turn>]]" == shown


@given(st.text(max_size=20))
def test_visible_text_is_one_printable_word(text: str) -> None:
    """
    It contains no line break, space or bidi control of the data, and a separator is always escaped.
    """
    from thunder_train.worker.inspect.tokens import visible

    shown = visible(text)

    assert shown.isprintable()
    assert " " not in shown
    assert "|" not in shown.replace("\\\\", "").replace("\\|", "")


def test_bytes_of_a_character_are_shown_together(preview: Preview) -> None:
    """
    ɛ is two byte tokens for nano; the three bytes of a replacement character are shown by name.
    """
    shown = preview("q", "ɛ\N{REPLACEMENT CHARACTER}").partition("[[")[2]

    assert r"ɛ\u025b·2|<0xEF>|<0xBF>|<0xBD>|<end_of_turn>]]" == shown


def test_tokens_that_are_parts_of_letters_are_shown_as_letters() -> None:
    """
    A token of a byte-level vocabulary can contain the end of one letter and the start of the next.
    If a target begins inside a letter, each part is separate, with its name in the vocabulary.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    from thunder_train.worker.batching.examples import Example
    from thunder_train.worker.inspect.tokens import pieces, preview, visible

    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    first, *middle, last = list(level.pre_tokenize_str("ߞߊ")[0][0])
    names = [*sorted(level.alphabet()), "".join(middle)]
    model = Tokenizer(models.BPE({name: i for i, name in enumerate(names)}, [tuple(middle)]))
    model.pre_tokenizer, model.decoder = level, decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=model)
    tokens = tuple(tokenizer.encode("aߋ ߞߊ"))

    def shown(start: int) -> str:
        return "\n".join(preview(pieces(Example("x", tokens, ((start, 7),)), tokenizer), 120))

    assert r"  t0  a|ߋ\u07cb·2|␣|[[ߞߊ\u07de\u07ca·3]]" == shown(4)
    parts = [visible(each) for each in (first, "".join(middle), last)]
    assert rf"  t0  a|ߋ\u07cb·2|␣|{parts[0]}|[[{parts[1]}|{parts[2]}]]" == shown(5)


def test_the_pieces_are_the_row(pieces: "Callable[..., list[Piece]]") -> None:
    """
    No text is lost, and a piece never crosses the end of a target.
    """
    row = pieces("ߊɛ", "ߋ…ɔ ߞ", "ʔ", "ߌ€")

    assert "ߋ…ɔ ߞ<end_of_turn>ߌ€<end_of_turn>" == "".join(each.text for each in row if each.is_trained)
    assert "".join(each.text for each in row) == (
        "<bos><start_of_turn>user\nߊɛ<end_of_turn>\n<start_of_turn>model\nߋ…ɔ ߞ<end_of_turn>\n"
        "<start_of_turn>user\nʔ<end_of_turn>\n<start_of_turn>model\nߌ€<end_of_turn>"
    )


@pytest.mark.parametrize("width", [1, 30, 90])
def test_every_line_reads_from_the_left(preview: Preview, width: int) -> None:
    """
    The first strong letter, which decides the direction, is Latin, and code points separate the N'Ko letters.
    """
    lines = preview("ߊߋߌ ߍߎ ߓߊ ߓߋ ߓߌ", "ߊ", width=width).splitlines()

    assert all(line.startswith("  t") for line in lines)
    assert all(len(line) <= width or "|" not in line for line in lines)
    assert "ߊ\\u07ca|ߋ\\u07cb|ߌ\\u07cc|␣|ߍ" in "|".join(line.split("  ")[2] for line in lines)


def test_the_blank_of_a_word_is_shown_for_sentencepiece(folder: Path, tmp_path: Path) -> None:
    """
    Its decoder leaves out the blank that a text begins with, so words looked as if their blanks were lost.
    """
    from mlx_lm.utils import load_tokenizer

    from thunder_train.worker.batching.examples import Example
    from thunder_train.worker.inspect import tokens

    content = json.loads((folder / "nano" / "tokenizer.json").read_text())
    strip = {"type": "Strip", "content": " ", "start": 1, "stop": 0}
    replace = {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "}
    content["decoder"] = {"type": "Sequence", "decoders": [replace, {"type": "ByteFallback"}, {"type": "Fuse"}, strip]}
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    shutil.copy(folder / "nano" / "tokenizer_config.json", tmp_path)
    tokenizer = load_tokenizer(tmp_path, eos_token_ids=[5])
    row = Example("x", tuple(tokenizer.encode("a b", add_special_tokens=False)), ((1, 3),))

    assert ["a", " ", "b"] == [piece.text for piece in tokens.pieces(row, tokenizer)]
