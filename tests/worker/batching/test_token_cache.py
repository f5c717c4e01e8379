"""Tokens on disk: the same rows are tokenised once."""

import multiprocessing
from dataclasses import replace
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


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A 1 for each rendered text."""
    from thunder_train.worker.chat import Chat

    calls: list[int] = []
    render = Chat.text

    def counting(*given: Any, **named: Any) -> str:
        calls.append(1)
        return render(*given, **named)

    monkeypatch.setattr(Chat, "text", counting)
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
    from thunder_train.worker.batching import token_cache, tokens

    cache, path = tmp_path / "cache", tmp_path / "rows.jsonl"
    write_rows(path, [row(1, "ߞߊ")])
    other = tokenizer.chat_template.replace("model", "user")
    for number, changed in enumerate([{}, {"template": other}, {"arguments": {"a": 1}}, {"end_answers": False}], 1):
        tokens.read_all(path, replace(nano_chat, **changed), "last", cache)
        assert number == len(list(cache.iterdir()))
    monkeypatch.setattr(tokenizer._tokenizer, "chat_template", other)
    tokens.read_all(path, nano_chat, "last", cache)
    write_rows(path, [row(1, "ߞߋ")])
    tokens.read_all(path, nano_chat, "last", cache)
    monkeypatch.setattr(token_cache, "CODE", 0)
    tokens.read_all(path, nano_chat, "last", cache)

    assert 7 == len(list(cache.iterdir()))


def test_rows_that_change_while_they_are_read_are_not_cached(
    tmp_path: Path, nano_chat: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Their tokens would stand for the rows of before, in every later training.
    """
    from thunder_train.worker.batching import tokens
    from thunder_train.worker.chat import Chat

    path, render = write_rows(tmp_path / "rows.jsonl", [row(1, "ߞߊ")]), Chat.text

    def swapping(*given: Any, **named: Any) -> str:
        write_rows(path, [row(1, "ߞߋ")])
        return render(*given, **named)

    monkeypatch.setattr(Chat, "text", swapping)
    tokens.read_all(path, nano_chat, "last", tmp_path / "cache")

    assert [] == list((tmp_path / "cache").iterdir())


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


def test_a_cache_that_others_wrote_is_read_without_a_lock(
    tmp_path: Path, nano_chat: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    A project may be looked at by somebody who cannot write in it.
    """
    from thunder_train.worker.batching import token_cache, tokens

    path = write_rows(tmp_path / "rows.jsonl", [row(1, "ߞߊ")])
    made = tokens.read_all(path, nano_chat, "last", tmp_path / "cache")

    def refused(place: Path) -> None:
        raise AssertionError(f"{place} must not be locked")

    monkeypatch.setattr(token_cache, "alone", refused)

    assert made == tokens.read_all(path, nano_chat, "last", tmp_path / "cache")


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


def test_a_cache_of_every_answer_serves_those_that_need_the_last(
    tmp_path: Path, nano_chat: Any, counted: list[int]
) -> None:
    """
    train_on = "all" and the evaluation, which reads the last answers, tokenise a row once.
    """
    from thunder_train.worker.batching import tokens

    path = write_rows(tmp_path / "rows.jsonl", [row(1, "ߞߊ"), chat("ߊ", "ߋߌ", "ߍ", "ߎ")])
    last = tokens.read_all(path, nano_chat, "last")
    tokens.read_all(path, nano_chat, "all", tmp_path / "cache")
    rendered = len(counted)

    assert last == tokens.read_all(path, nano_chat, "last", tmp_path / "cache")
    assert rendered == len(counted)


def test_a_cache_of_last_answers_serves_all_where_a_row_has_one(
    tmp_path: Path, nano_chat: Any, counted: list[int]
) -> None:
    """
    Rows of a recogniser have one answer; where a row has more, the missing ones are looked for.
    """
    from thunder_train.worker.batching import tokens

    single = write_rows(tmp_path / "single.jsonl", [row(1, "ߞߊ"), row(2, "ߞߋ")])
    several = write_rows(tmp_path / "several.jsonl", [chat("ߊ", "ߋߌ", "ߍ", "ߎ")])
    for path in (single, several):
        tokens.read_all(path, nano_chat, "last", tmp_path / "cache")
    rendered = len(counted)

    assert 2 == len(tokens.read_all(single, nano_chat, "all", tmp_path / "cache"))
    assert rendered == len(counted)
    assert [2] == [len(each.spans) for each in tokens.read_all(several, nano_chat, "all", tmp_path / "cache")]
    assert rendered < len(counted)


def _hold(lock: str, held: Any, seconds: float) -> None:
    import time

    from thunder_train.worker.batching import token_cache

    with token_cache.alone(Path(lock)):
        held.set()
        time.sleep(seconds)
        Path(lock).with_suffix(".made").touch()


def test_two_ranks_of_a_machine_tokenise_a_row_once(tmp_path: Path) -> None:
    """
    The second waits until the first has written the file, and reads it.
    """
    from thunder_train.worker.batching import token_cache

    context = multiprocessing.get_context("spawn")
    held, place = context.Event(), tmp_path / "key.tokens"
    other = context.Process(target=_hold, args=(str(place), held, 0.5))
    other.start()
    assert held.wait(60)
    with token_cache.alone(place):
        assert place.with_suffix(".made").exists()
    other.join(60)

    assert 0 == other.exitcode
    assert [place.with_suffix(".made")] == list(tmp_path.iterdir())
