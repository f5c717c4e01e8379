"""Rows to tokens, and which of them are trained on."""

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
    path = write_rows(tmp_path / "rows.jsonl", [empty, row(3, "ߞߋ"), open_ended, {"a": "no chat"}])

    with pytest.raises(ThunderError) as caught:
        tokens.read(path, nano_chat, tokens.Policy(100))

    expected = [
        f"{path}: has no target: the last message is not an answer (2 rows: lines 1, 3); end it with an answer",
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


def test_an_answer_that_the_template_rewrites_later_is_trained_on_after_its_own_prompt(
    tmp_path: Path, tokenizer: Any
) -> None:
    """
    In the row's own text the model would read "x", but after its prompt it writes "()x": so each answer gets a row.
    """
    from thunder_train.worker.batching import tokens
    from thunder_train.worker.chat import Chat

    path = write_rows(tmp_path / "rows.jsonl", [chat("q", "x", "r", "yz"), chat("s", "w")])
    made = tokens.tokenise(path, Chat(tokenizer, FORGETTING), "all")
    last = tokens.read_all(path, Chat(tokenizer, FORGETTING), "last")

    end = "<end_of_turn>"
    texts = [f"uq{end}a()x{end}", f"uq{end}ax{end}ur{end}a()yz{end}", f"us{end}a()w{end}"]
    assert texts == [tokenizer.decode(each.tokens) for each in made.examples]
    targets = [tokenizer.decode(each.tokens[each.first_target :]) for each in made.examples]
    assert [f"()x{end}", f"()yz{end}", f"()w{end}"] == targets
    assert (0, 0, 1) == made.lines
    assert list(made.examples[1:]) == last


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
