"""Rows token by token, as people read them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytestmark = pytest.mark.mlx


@pytest.fixture
def pieces(tokenizer):
    """A function: what user and assistant say in turn -> the row in pieces, every answer a target."""
    from thunder_train.worker.batching import tokens
    from thunder_train.worker.inspect import tokens as token_text

    def pieces(*contents):
        messages = [{"role": ("user", "assistant")[i % 2], "content": each} for i, each in enumerate(contents)]
        return token_text.pieces(tokens.example({"messages": messages}, tokenizer, "x:1", "all"), tokenizer)

    return pieces


@pytest.fixture
def plain(pieces):
    """A function: what user and assistant say in turn -> lines for a pipe."""
    from thunder_train.worker.inspect import tokens as token_text

    return lambda *contents, width=200: token_text.plain(pieces(*contents), width)


def test_trained_tokens_are_in_brackets(plain):
    """
    Control tokens are seen, each token stands alone, letters beyond ASCII have their code points beside them.
    """
    expected = (
        r"  t0  <bos>|<start_of_turn>|u|s|e|r|\n|ߊ\u07ca|␣|x|<end_of_turn>|\n|<start_of_turn>|m|o|d|e|l|\n|[[ߊ\u07ca"
        "\n"
        r"  t20  ◌߫\u07eb|<end_of_turn>]]|\n|<start_of_turn>|u|s|e|r|\n|y|<end_of_turn>|\n|<start_of_turn>|m|o|d|e|l"
        "\n"
        r"  t38  \n|[[o|k|<end_of_turn>]]"
    )
    assert expected == plain("ߊ x", "ߊ߫", "y", "ok", width=106)


def test_a_hidden_or_confusing_character_is_an_escape(plain):
    """
    Data must not reorder the page, break a line, or look like a separator or a bracket.
    """
    shown = plain("q", "a\u202e\n\t|[]\\\u200f").partition("[[")[2]

    assert r"a|\u202e·3|\n|\t|\||\[|\]|\\|\u200f·3|<end_of_turn>]]" == shown


@given(st.text(max_size=20))
def test_shown_text_is_one_printable_word(text):
    """
    Neither a line break nor a space nor a bidi control of the data is left, and a separator is always escaped.
    """
    from thunder_train.worker.inspect.tokens import shown

    made = shown(text)

    assert made.isprintable()
    assert " " not in made
    assert "|" not in made.replace("\\\\", "").replace("\\|", "")


def test_bytes_of_a_character_are_shown_together(plain):
    """
    ɛ is two bytes to nano, neither of which is text; a replacement character is three, and no text at all.
    """
    shown = plain("q", "ɛ\N{REPLACEMENT CHARACTER}").partition("[[")[2]

    assert r"ɛ\u025b·2|<0xEF>|<0xBF>|<0xBD>|<end_of_turn>]]" == shown


def test_tokens_that_are_parts_of_letters_are_shown_as_letters():
    """
    A byte-level vocabulary cuts inside letters, and one of its tokens may hold the end of one and the start of another.
    Where a target begins inside a letter, each part stands alone, as the vocabulary calls it.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    from thunder_train.worker.batching.tokens import Example
    from thunder_train.worker.inspect.tokens import pieces, plain, shown

    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    first, *middle, last = level.pre_tokenize_str("ߞߊ")[0][0]
    names = [*sorted(level.alphabet()), "".join(middle)]
    model = Tokenizer(models.BPE({name: i for i, name in enumerate(names)}, [tuple(middle)]))
    model.pre_tokenizer, model.decoder = level, decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=model)
    tokens = tuple(tokenizer.encode("aߋ ߞߊ"))

    def made(start):
        return plain(pieces(Example("x", tokens, ((start, 7),)), tokenizer), 120)

    assert r"  t0  a|ߋ\u07cb·2|␣|[[ߞߊ\u07de\u07ca·3]]" == made(4)
    parts = [shown(each) for each in (first, "".join(middle), last)]
    assert rf"  t0  a|ߋ\u07cb·2|␣|{parts[0]}|[[{parts[1]}|{parts[2]}]]" == made(5)


def test_the_pieces_are_the_row(pieces):
    """
    Nothing is left out, and a piece never crosses the end of a target.
    """
    made = pieces("ߊɛ", "ߋ…ɔ ߞ", "ʔ", "ߌ€")

    assert "ߋ…ɔ ߞ<end_of_turn>ߌ€<end_of_turn>" == "".join(each.text for each in made if each.is_trained)
    assert "".join(each.text for each in made) == (
        "<bos><start_of_turn>user\nߊɛ<end_of_turn>\n<start_of_turn>model\nߋ…ɔ ߞ<end_of_turn>\n"
        "<start_of_turn>user\nʔ<end_of_turn>\n<start_of_turn>model\nߌ€<end_of_turn>"
    )


@pytest.mark.parametrize("width", [1, 30, 90])
def test_every_line_reads_from_the_left(plain, width):
    """
    Whatever lays out text by its first strong letter finds a Latin one, and each N'Ko letter stands between others.
    """
    lines = plain("ߊߋߌ ߍߎ ߓߊ ߓߋ ߓߌ", "ߊ", width=width).splitlines()

    assert all(line.startswith("  t") for line in lines)
    assert all(len(line) <= width or "|" not in line for line in lines)
    assert "ߊ\\u07ca|ߋ\\u07cb|ߌ\\u07cc|␣|ߍ" in "|".join(line.split("  ")[2] for line in lines)


def test_on_a_terminal_trained_tokens_stand_out_without_colour_too(pieces):
    """
    Bold and underlined, the rest dim; no brackets.
    """
    from thunder_train.worker.inspect.tokens import REST, TRAINED, coloured

    made = coloured(pieces("q", "ߊ"), 200)

    styled = [(made.plain[span.start : span.end], span.style) for span in made.spans]
    assert [("ߊ\\u07ca", TRAINED), ("|", REST), ("<end_of_turn>", TRAINED)] == styled[-3:]
    assert {REST} == {style for _, style in styled[:-3]}
    assert {"bold", "underline"} < set(TRAINED.split())
