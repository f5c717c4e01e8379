"""Messages to text: the tokenizer's chat template or the recipe's, its arguments and its errors."""

import copy
import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.helpers.project_copy import PROJECT
from thunder_train import ThunderError

pytestmark = pytest.mark.mlx

QUESTION = [{"role": "user", "content": "x"}]
CHATML = PROJECT / "templates" / "chat" / "chatml.jinja"


def inputs(template: Path | None = None, arguments: dict[str, Any] | None = None, end_answers: bool = True) -> Any:
    """The flags that decide how messages become text."""
    return SimpleNamespace(chat_template=template, template_arguments=lambda: arguments or {}, end_answers=end_answers)


def test_a_template_that_writes_the_date_gives_the_same_text_every_day(tokenizer: Any) -> None:
    """
    Llama 3's and gpt-oss's do; with today's date a resumed training would be another one.
    """
    from thunder_train.worker.chat import Chat, of

    dated = "{{ strftime_now('%d %b %Y') }}"

    assert "26 Jul 2024" == Chat(tokenizer, dated).text(QUESTION, is_prompt=True)
    assert "31 Jan 2025" == Chat(tokenizer, dated, {"today": "2025-01-31"}).text(QUESTION, is_prompt=True)
    with pytest.raises(ThunderError) as caught:
        of(tokenizer, inputs(arguments={"today": "tomorrow"}))
    assert "--template-args: today is 'tomorrow'; write a date, as \"2024-07-26\"" == str(caught.value)


def test_thinking_is_off_unless_the_recipe_says_otherwise(tokenizer: Any) -> None:
    """
    Rows hold no thoughts. Both names are in use: Qwen's and GLM's, and DeepSeek's.
    """
    from thunder_train.worker.chat import Chat

    template = "{{ enable_thinking }} {{ thinking }} {{ style }}"

    assert "False False " == Chat(tokenizer, template).text(QUESTION, is_prompt=True)
    chosen = Chat(tokenizer, template, {"enable_thinking": True, "style": "short"})
    assert "True False short" == chosen.text(QUESTION, is_prompt=True)


def test_a_renderer_of_mlx_lm_is_used_where_the_model_names_one(folder: Path, tmp_path: Path) -> None:
    """
    DeepSeek V3.2's messages are rendered by Python code of mlx-lm, which takes fewer names than a template.
    """
    from mlx_lm.utils import load_tokenizer

    from thunder_train.worker.chat import Chat

    config = json.loads((folder / "nano" / "tokenizer_config.json").read_text())
    config = {name: value for name, value in config.items() if name != "chat_template"}
    shutil.copy(folder / "nano" / "tokenizer.json", tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template_type": "deepseek_v32"}))
    tokenizer = load_tokenizer(tmp_path, eos_token_ids=[5])

    assert Chat(tokenizer).text(QUESTION, is_prompt=True).endswith("<｜User｜>x<｜Assistant｜></think>")
    assert Chat(tokenizer, "{{ messages[0].content }}").text(QUESTION, is_prompt=True) == "x"


def test_the_recipe_s_template_replaces_the_tokenizer_s(tokenizer: Any, tmp_path: Path) -> None:
    """
    A base model has none; whoever gives one means it for a model that has one, too.
    """
    from thunder_train.worker.chat import of

    (tmp_path / "t.jinja").write_text("{{ bos_token }}{{ messages[0].content }}")

    assert "<bos>x" == of(tokenizer, inputs(tmp_path / "t.jinja")).text(QUESTION, is_prompt=True)


def test_control_tokens_that_the_vocabulary_lacks_are_named(tokenizer: Any) -> None:
    """
    They would be several tokens of text, which mean nothing to the base model.
    """
    from thunder_train.worker.chat import of

    with pytest.raises(ThunderError) as caught:
        of(tokenizer, inputs(CHATML))

    expected = (
        f"{CHATML}: writes <|im_start|>, <|im_end|>, which are no single tokens of the model's vocabulary; write it "
        "with control tokens of the vocabulary (<bos>, <end_of_turn>, <pad>, <unk>), or use templates/chat/plain.jinja"
    )
    assert expected == str(caught.value)
    of(tokenizer, inputs(CHATML.with_name("plain.jinja")))


def test_special_tokens_past_the_vocabulary_are_refused(folder: Path, tmp_path: Path) -> None:
    """
    transformers adds them in silence, and MLX reads memory that is no embedding.
    """
    import mlx_lm.tokenizer_utils

    from thunder_train.worker import chat

    base = tmp_path / "base"
    shutil.copytree(folder / "nano", base)
    settings = json.loads((base / "tokenizer_config.json").read_text())
    (base / "tokenizer_config.json").write_text(json.dumps(settings | {"bos_token": "<s>", "eos_token": "</s>"}))
    size = json.loads((base / "config.json").read_text())["vocab_size"]

    with pytest.raises(ThunderError) as caught:
        chat.of(mlx_lm.tokenizer_utils.load(base), inputs())

    assert str(caught.value) == (
        f"{base}/tokenizer_config.json: names bos_token <s> and eos_token </s>, outside of the model's vocabulary of "
        f"{size} tokens; name tokens of tokenizer.json there, or null"
    )


@pytest.mark.parametrize("content", [None, b"", b"\xff\xfe", b"x" * 1_000_001])
def test_a_template_that_cannot_be_read_is_one_line(tokenizer: Any, tmp_path: Path, content: bytes | None) -> None:
    """
    It is a user's mistake, so there is no traceback.
    """
    from thunder_train.worker.chat import of

    path = tmp_path / "t.jinja"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(ThunderError, match=r"t\.jinja: (cannot be read as a|is no chat) template.*; correct"):
        of(tokenizer, inputs(path))


def test_a_pipe_is_no_template(tokenizer: Any, tmp_path: Path) -> None:
    """
    Reading it would wait until somebody writes, perhaps for ever.
    """
    from thunder_train.worker.chat import of

    os.mkfifo(tmp_path / "t.jinja")

    with pytest.raises(ThunderError, match=r"t\.jinja: cannot be read as a template: .*no plain file"):
        of(tokenizer, inputs(tmp_path / "t.jinja"))


@pytest.mark.parametrize("text", ["{% for %}", "{{ a", "{% include 'x' %}{% endif %}", "{{" + "(" * 5000])
def test_a_file_that_is_no_template_is_one_line(tokenizer: Any, tmp_path: Path, text: str) -> None:
    """
    The place is the template, not a row.
    """
    from thunder_train.worker.chat import of

    (tmp_path / "t.jinja").write_text(text)
    with pytest.raises(ThunderError, match=r"^[^\n]+t\.jinja: is no Jinja template: [^\n]*; correct it$"):
        of(tokenizer, inputs(tmp_path / "t.jinja"))


def test_a_tokenizer_without_a_template_names_the_key(tokenizer: Any) -> None:
    """
    Base models have none: gemma-4-e2b, for one.
    """
    from thunder_train.worker.chat import Chat

    bare = copy.deepcopy(tokenizer)
    bare.has_chat_template = False
    with pytest.raises(ThunderError) as caught:
        Chat(bare).text(QUESTION, is_prompt=True)

    expected = (
        "--model: the tokenizer has no chat template; set chat_template in [models.NAME] to a file of templates/chat, "
        "or use an instruction-tuned model"
    )
    assert expected == str(caught.value)


@pytest.mark.parametrize(
    "template",
    [
        "{{ 1 / 0 }}",
        "{% for i in range(999999) %}{% endfor %}",
        "{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}",
        "{{ messages.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.clear() }}",
        "{{ ''.join([1]) }}",
        "{{ messages[9].role }}",
    ],
)
def test_a_template_that_fails_or_reaches_for_python_is_one_line(tokenizer: Any, template: str) -> None:
    """
    A chat template comes with a model, from anyone; transformers renders it in Jinja's immutable sandbox.
    """
    from thunder_train.worker.chat import Chat

    wrapper = copy.deepcopy(tokenizer)
    wrapper.chat_template = template

    with pytest.raises(
        ThunderError, match=r"^the chat template rejects it: [^\n]+; change the messages, or give another template$"
    ):
        Chat(wrapper).text(QUESTION, is_prompt=True)


def test_a_template_that_does_not_end_is_stopped(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Jinja's sandbox bounds a loop, but ten thousand million rounds of two would keep every rank busy for hours.
    """
    from thunder_train.worker import chat

    monkeypatch.setattr(chat, "LONGEST_S", 0.05)
    endless = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"

    with pytest.raises(ThunderError) as caught:
        chat.Chat(tokenizer, endless).text(QUESTION, is_prompt=True)

    expected = "the chat template: is still not done with a row after 0 s; correct its loops, or give another template"
    assert expected == str(caught.value)
    assert "x" == chat.Chat(tokenizer, "{{ messages[0].content }}").text(QUESTION, is_prompt=True)


def test_arguments_that_the_template_does_not_name_are_told(tokenizer: Any) -> None:
    """
    With `enable_thinkng = false` a model would be trained to think, and nobody would know.
    """
    from thunder_train.worker.chat import Chat

    template = "{{ enable_thinking }} {{ strftime_now('%d') }}"
    given = {"enable_thinking": False, "enable_thinkng": False, "today": "2025-01-31"}

    assert ["the chat template reads no argument enable_thinkng"] == Chat(tokenizer, template, given).unread
    assert ["the chat template reads no argument style"] == Chat(tokenizer, "", {"style": "x"}).unread
