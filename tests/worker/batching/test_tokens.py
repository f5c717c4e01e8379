"""Rows to tokens, and which of them are trained on."""

import copy
from pathlib import Path
from typing import Any

import pytest

from tests.worker.conftest import row, write_rows
from thunder_train import ThunderError

pytestmark = pytest.mark.mlx


def chat(*contents: str) -> dict[str, Any]:
    """A row of user and assistant messages in turn."""
    roles = ("user", "assistant")
    return {"id": "chat", "messages": [{"role": roles[i % 2], "content": each} for i, each in enumerate(contents)]}


FORGETTING = (
    "{% for message in messages %}{{ message.role[0] }}"
    "{% if message.role == 'assistant' and loop.last %}(){% endif %}{{ message.content }}<end_of_turn>{% endfor %}"
    "{% if add_generation_prompt %}a{% endif %}"
)
"""A template that, like Qwen3's, writes an answer otherwise once another turn follows."""


def test_the_answer_and_its_end_of_turn_are_the_only_targets(tokenizer: Any, nano_chat: Any) -> None:
    """
    The prompt must not be learned, and the end must be, or the model never stops.
    """
    from thunder_train.worker.batching import tokens

    made = tokens.example(row(1, "ߞߊ"), nano_chat, where="x:1")

    assert "ߞߊ<end_of_turn>" == tokenizer.decode(list(made.tokens[made.first_target :]))
    assert 3 == made.targets


def test_a_row_begins_once(tokenizer: Any, nano_chat: Any) -> None:
    """
    Rendering to text and encoding that would add a second <bos>.
    """
    from thunder_train.worker.batching import tokens

    made = tokens.example(row(1, "ߞߊ"), nano_chat, where="x:1").tokens

    assert 1 == made.count(tokenizer.bos_token_id)
    assert tokenizer.bos_token_id == made[0]


def test_every_row_without_a_target_is_named(tmp_path: Path, nano_chat: Any) -> None:
    """
    A row without a target is a mistake in the data, and must not be ignored.
    """
    from thunder_train.worker.batching import tokens

    empty, open_ended = row(1, "ߞߊ"), row(2, "ߞߊ")
    empty["messages"][-1]["content"] = ""
    open_ended["messages"].pop()
    path = write_rows(tmp_path / "rows.jsonl", [empty, row(3, "ߞߋ"), open_ended, {"text": "no chat"}])

    with pytest.raises(ThunderError) as caught:
        tokens.read(path, nano_chat, tokens.Policy(100))

    expected = [
        f"{path}:1: has no target: the last message is not an answer; end it with an answer",
        f"{path}:3: has no target: the last message is not an answer; end it with an answer",
        f"{path}:4: has no `messages` with role and content; write ChatML rows",
    ]
    assert expected == str(caught.value).split("\n")


def test_rows_that_would_be_cut_are_refused_with_their_lengths(tmp_path: Path, nano_chat: Any) -> None:
    """
    Cutting from the right removes the answer: the first users trained on such rows without noticing.
    """
    from thunder_train.worker.batching import tokens

    path = write_rows(tmp_path / "rows.jsonl", [row(1, "ߞߊ"), row(2, "ߞߊ ߞߋ ߞߌ ߞߍ")])

    with pytest.raises(ThunderError) as caught:
        tokens.read(path, nano_chat, tokens.Policy(46))

    expected = (
        f"{path}: the answers of 1 rows would be cut at 46 tokens: row-2 (56 tokens); "
        "set max_seq_len to 56, or too_long to drop or split"
    )
    assert expected == str(caught.value)


def test_rows_that_would_be_cut_can_be_dropped_and_are_counted(tmp_path: Path, nano_chat: Any) -> None:
    """
    A row is never trained on in part, and every dropped row is counted.
    """
    from thunder_train.worker.batching import tokens

    path = write_rows(tmp_path / "rows.jsonl", [row(1, "ߞߊ"), row(2, "ߞߊ ߞߋ ߞߌ ߞߍ")])
    split = tokens.read(path, nano_chat, tokens.Policy(46, "drop"))

    assert (["row-1"], 1) == ([each.row_id for each in split.examples], split.dropped)


def test_a_template_that_rewrites_the_prompt_is_refused(tokenizer: Any) -> None:
    """
    If the prompt is not a prefix of the row, the start of the answer is unknown.
    """
    from thunder_train.worker.batching import tokens
    from thunder_train.worker.chat import Chat

    rewriting = "{{ messages[-1].content }}{% for message in messages %}{{ message.content }}{% endfor %}<end_of_turn>"
    with pytest.raises(
        ThunderError, match="x:1: the chat template does not render the prompt as a prefix of the whole row"
    ):
        tokens.example(row(1, "ߞߊ"), Chat(tokenizer, rewriting), where="x:1")


def test_every_answer_is_trained_on_if_the_recipe_says_so(tokenizer: Any, nano_chat: Any) -> None:
    """
    Each turn's answer with its end of turn; questions never. "last" sees the same tokens and trains on the last alone.
    """
    from thunder_train.worker.batching import tokens

    talk = chat("ߊ", "ߋߌ", "ߍ", "ߎ", "ߏ", "ߐߑߒ")
    every = tokens.example(talk, nano_chat, "x:1", "all")
    last = tokens.example(talk, nano_chat, "x:1", "last")

    answers = [tokenizer.decode(list(every.tokens[start:end])) for start, end in every.spans]
    assert [f"{answer}<end_of_turn>" for answer in ("ߋߌ", "ߎ", "ߐߑߒ")] == answers
    assert 9 == every.targets
    assert (every.tokens, every.spans[-1:]) == (last.tokens, last.spans)
    assert 1 == every.tokens.count(tokenizer.bos_token_id)


def test_a_template_that_changes_earlier_answers_trains_on_the_last_alone(tokenizer: Any) -> None:
    """
    The model would learn to write another text than it reads once the conversation goes on.
    """
    from thunder_train.worker.batching import tokens
    from thunder_train.worker.chat import Chat

    talk = chat("q", "x", "r", "yz")
    made = tokens.example(talk, Chat(tokenizer, FORGETTING), "x:1", "last")
    with pytest.raises(ThunderError) as caught:
        tokens.example(talk, Chat(tokenizer, FORGETTING), "x:1", "all")

    end = "<end_of_turn>"
    assert f"uq{end}ax{end}ur{end}a()yz{end}" == tokenizer.decode(made.tokens)
    assert ((10, 15),) == made.spans
    expected = "x:1: the chat template changes earlier answers, or does not end them; "
    assert expected + "set train_on to last, or fix the template" == str(caught.value)


def test_an_earlier_answer_without_text_is_refused_where_it_would_be_trained_on(nano_chat: Any) -> None:
    """
    It would teach the model to say nothing.
    """
    from thunder_train.worker.batching import tokens

    with pytest.raises(ThunderError, match="x:1: has an answer without text; fill it, or set train_on to last"):
        tokens.example(chat("ߊ", "", "ߍ", "ߎ"), nano_chat, "x:1", "all")


@pytest.mark.parametrize("room", [1, 2, 5, 9])
def test_a_split_answer_is_trained_on_exactly_once(tmp_path: Path, nano_chat: Any, room: int) -> None:
    """
    No token is lost or learned twice, every piece keeps the prompt, and later ones see the end of the piece before.
    """
    from thunder_train.worker.batching import tokens

    path = write_rows(tmp_path / "rows.jsonl", [row(1, "ߞߊ ߞߋ ߞߌ ߞߍ")])
    whole = tokens.read_all(path, nano_chat)[0]
    prompt = whole.first_target
    split = tokens.read(path, nano_chat, tokens.Policy(prompt + room, "split"))

    learned = [each.tokens[start:end] for each in split.examples for start, end in each.spans]
    assert whole.tokens[prompt:] == sum(learned, ())
    assert {whole.tokens[:prompt]} == {each.tokens[:prompt] for each in split.examples}
    assert all(len(each.tokens) <= prompt + room for each in split.examples)
    contexts = [each.tokens[prompt : each.first_target] for each in split.examples]
    done: tuple[int, ...] = ()
    for context, part in zip(contexts, learned, strict=True):
        assert context == done[len(done) - len(context) :]
        done += part
    assert {room // 2} == {len(each) for each in contexts[1:]}
    assert [f"row-1#{number}" for number in range(1, len(learned) + 1)] == [each.row_id for each in split.examples]
    assert (0, 1, whole.targets) == (split.dropped, split.split, split.targets)


def test_a_prompt_that_does_not_fit_is_dropped_and_counted(tmp_path: Path, nano_chat: Any) -> None:
    """
    It cannot be split: an answer without its whole prompt has no meaning.
    """
    from thunder_train.worker.batching import tokens

    path = write_rows(tmp_path / "rows.jsonl", [row(1, "ߞߊ"), row(2, "ߞߊ" * 20)])
    split = tokens.read(path, nano_chat, tokens.Policy(46, "split"))

    assert (["row-1"], 1, 0) == ([each.row_id for each in split.examples], split.dropped, split.split)


def test_answers_that_fit_stay_together_when_a_later_one_is_split(tmp_path: Path, nano_chat: Any) -> None:
    """
    A conversation is cut where it must be, and answers behind the cut are counted as dropped.
    """
    from thunder_train.worker.batching import tokens

    path = write_rows(tmp_path / "rows.jsonl", [chat("ߊ", "ߋߌ", "ߍ", "ߎ" * 30, "ߏ", "ߐߑߒ")])
    whole = tokens.read_all(path, nano_chat, "all")[0]
    second = whole.spans[1][0]
    split = tokens.read(path, nano_chat, tokens.Policy(second + 20, "split", "all"))

    first = split.examples[0]
    assert (whole.spans[:1], whole.tokens[: whole.spans[0][1]]) == (first.spans, first.tokens)
    assert whole.targets - 4 == split.targets
    assert (1, 1) == (split.dropped, split.split)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How often a row was rendered."""
    from thunder_train.worker.batching import tokens

    calls: list[int] = []
    render = tokens.render

    def counting(*given: Any, **named: Any) -> list[int]:
        calls.append(1)
        return render(*given, **named)

    monkeypatch.setattr(tokens, "render", counting)
    return calls


def test_tokens_made_once_are_read_from_disk(tmp_path: Path, nano_chat: Any, counted: list[int]) -> None:
    """
    Two ranks, a resumed run and an evaluation see the same rows, and none waits for the template again.
    """
    from thunder_train.worker.batching import tokens

    path = write_rows(tmp_path / "rows.jsonl", [row(1, "ߞߊ"), chat("ߊ", "ߋߌ", "ߍ", "ߎ")])
    made = tokens.read_all(path, nano_chat, "all", tmp_path / "cache")
    rendered = len(counted)

    assert (
        made == tokens.read_all(path, nano_chat, "all", tmp_path / "cache") == tokens.read_all(path, nano_chat, "all")
    )
    assert 2 * rendered == len(counted)


def test_other_rows_settings_or_templates_are_other_tokens(
    tmp_path: Path, tokenizer: Any, nano_chat: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Tokens of another row or template would be trained on without any sign.
    """
    from thunder_train.worker.batching import tokens

    cache, path = tmp_path / "cache", tmp_path / "rows.jsonl"
    write_rows(path, [row(1, "ߞߊ")])
    tokens.read_all(path, nano_chat, "last", cache)
    tokens.read_all(path, nano_chat, "all", cache)
    monkeypatch.setattr(tokenizer._tokenizer, "chat_template", tokenizer.chat_template.replace("model", "user"))
    tokens.read_all(path, nano_chat, "last", cache)
    write_rows(path, [row(1, "ߞߋ")])
    tokens.read_all(path, nano_chat, "last", cache)
    monkeypatch.setattr(tokens, "CODE", 0)
    tokens.read_all(path, nano_chat, "last", cache)

    assert 5 == len(list(cache.iterdir()))


def test_rows_that_change_while_they_are_read_are_not_cached(
    tmp_path: Path, nano_chat: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Their tokens would stand for the rows of before, in every later training.
    """
    from thunder_train.worker.batching import tokens

    path, render = write_rows(tmp_path / "rows.jsonl", [row(1, "ߞߊ")]), tokens.render

    def swapping(*given: Any, **named: Any) -> list[int]:
        write_rows(path, [row(1, "ߞߋ")])
        return render(*given, **named)

    monkeypatch.setattr(tokens, "render", swapping)
    tokens.read_all(path, nano_chat, "last", tmp_path / "cache")

    assert not (tmp_path / "cache").exists()


def test_damaged_tokens_are_made_again(tmp_path: Path, nano_chat: Any, counted: list[int]) -> None:
    """
    A flipped bit is a wrong token, and a truncated file must not stop the training.
    """
    from thunder_train.worker.batching import tokens

    cache, path = tmp_path / "cache", write_rows(tmp_path / "rows.jsonl", [row(1, "ߞߊ")])
    made = tokens.read_all(path, nano_chat, "last", cache)
    (kept,) = cache.iterdir()
    good = kept.read_bytes()
    for damaged in (good[:-1], good[:-1] + bytes([good[-1] ^ 1]), b""):
        kept.write_bytes(damaged)
        assert made == tokens.read_all(path, nano_chat, "last", cache)
        assert good == kept.read_bytes()
    assert 2 * 4 == len(counted)


def test_a_file_without_rows_is_refused_again_the_second_time(tmp_path: Path, nano_chat: Any) -> None:
    """
    An empty list of tokens is not cached, or reading it would fail.
    """
    from thunder_train.worker.batching import tokens

    path = write_rows(tmp_path / "rows.jsonl", [])
    for _ in range(2):
        with pytest.raises(ThunderError, match="holds no row to use"):
            tokens.read(path, nano_chat, tokens.Policy(100), tmp_path / "cache")


def test_a_template_that_writes_the_date_gives_the_same_tokens_every_day(tokenizer: Any) -> None:
    """
    Llama 3's template does; with today's date a resumed training would be another one.
    """
    from thunder_train.worker.batching import tokens
    from thunder_train.worker.chat import Chat

    messages = [{"role": "user", "content": "x"}]
    dated = "{{ strftime_now('%d %b %Y') }}"

    assert "26 Jul 2024" == tokenizer.decode(tokens.render(messages, Chat(tokenizer, dated), "row", answer=False))
    chosen = Chat(tokenizer, dated, {"today": "2025-01-31"})
    assert "31 Jan 2025" == tokenizer.decode(tokens.render(messages, chosen, "row", answer=False))


def test_a_cache_folder_that_cannot_be_made_is_one_line(tmp_path: Path, nano_chat: Any) -> None:
    """
    It is a user's mistake, so there is no traceback.
    """
    from thunder_train.worker.batching import tokens

    path = write_rows(tmp_path / "rows.jsonl", [row(1, "ߞߊ")])
    with pytest.raises(ThunderError) as caught:
        tokens.read_all(path, nano_chat, "last", path / "cache")

    assert str(caught.value).startswith(f"{path}/cache/")
    assert str(caught.value).endswith(": cannot be written: Not a directory; free or unlock it")


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
    from thunder_train.worker.batching import tokens
    from thunder_train.worker.chat import Chat

    wrapper = copy.deepcopy(tokenizer)
    wrapper.chat_template = template

    with pytest.raises(ThunderError, match=r"^row: the chat template rejects it: "):
        tokens.render([{"role": "user", "content": "x"}], Chat(wrapper), "row", answer=False)
