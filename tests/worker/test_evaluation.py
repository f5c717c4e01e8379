"""Batches and their answers, kept answers, and what the ranks exchange."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlx.core as mx
import pytest

from tests.helpers import families
from thunder_train import ThunderError
from thunder_train.core import files
from thunder_train.worker import answer_text, evaluation, ranks, saved_adapter
from thunder_train.worker.answer_text import Answer
from thunder_train.worker.batching import plan
from thunder_train.worker.batching.examples import Example
from thunder_train.worker.evaluation import Question, Session
from thunder_train.worker.kept_answers import KeptAnswers
from thunder_train.worker.ranks import Ranks

pytestmark = pytest.mark.mlx

IDENTITY = {"--test-data": "a1", "model": "b2"}
ONE: list[dict[str, Any]] = [{"text": "ߊ", "finish": "stop", "special": 0, "raw": None}]
TWO: list[dict[str, Any]] = [{"text": "ߓ", "finish": "length", "special": 2, "raw": " ߓ"}]


def session(
    network: Any = None, tokenizer: Any = None, most: int = 12, size: int = 3, kept: KeptAnswers | None = None
) -> Session:
    """A session of one rank."""
    marks: Any = answer_text.marks_of(tokenizer) if tokenizer else None
    return Session(network, tokenizer, marks, most, size, Ranks(0, 1), kept or KeptAnswers(None, {}), lambda: None)


def questions(*prompts: list[int]) -> list[Question]:
    """Questions with these prompts, in tokens."""
    return [Question({"reference_text": "ߊ"}, prompt, [9]) for prompt in prompts]


def test_batches_are_of_like_lengths_and_hold_each_row_once() -> None:
    """
    Rows of one length share a batch, so little is padding; the same rows always give the same batches.
    """
    assert [(1, 4), (0, 2), (3,)] == evaluation.batches([5, 9, 5, 2, 9], size=2)


def test_the_cap_follows_from_the_longest_answer() -> None:
    """
    A correction may be longer than every training answer, but not by much.
    """
    short, long = (Example("id", (1,) * 9, ((2, end),)) for end in (3, 9))

    assert 7 * 3 // 2 + 8 == evaluation.cap([short, long])


def test_rows_of_plain_text_say_nothing_about_the_length_of_answers() -> None:
    """
    A page of text is no answer; it would let a model that does not stop write thousands of tokens.
    """
    answer, page = Example("id", (1,) * 9, ((2, 9),)), Example("page", (1,) * 500, ((1, 500),))

    assert 7 * 3 // 2 + 8 == evaluation.cap([answer, page])


@pytest.mark.parametrize("family", sorted(families.CONFIGS))
def test_a_batch_is_answered_as_each_row_alone_without_any_cache(family: str) -> None:
    """
    mlx-lm pads, caches and drops tokens outside a sliding window; no answer may depend on it. Windows are 6 tokens.
    """
    model = families.build(family)
    prompts = [[2 + (7 * i * i + n) % 90 for i in range(n)] for n in (17, 9, 3, 2)]
    tokenizer = SimpleNamespace(
        eos_token_ids={1}, all_special_ids=[], decode=lambda tokens, **_: " ".join(map(str, tokens))
    )

    expected = []
    for prompt in prompts:
        row = list(prompt)
        for _ in range(12):
            token = int(mx.argmax(model(mx.array([row]))[0, -1]).item())
            if token == 1:
                break
            row.append(token)
        expected.append(" ".join(map(str, row[len(prompt) :])))
    assert expected == [each.text for each in evaluation.answer(session(model, tokenizer), questions(*prompts))]


def test_an_answer_says_how_it_ended_and_counts_its_control_tokens(
    monkeypatch: pytest.MonkeyPatch, tokenizer: Any
) -> None:
    """
    An adapter that emits padding looks empty without the padding, so the padding is counted.
    """
    letter = tokenizer.encode("ߊ")[-1]
    made = SimpleNamespace(token_ids=[[letter], [letter, 0, 3, 0], []])
    monkeypatch.setattr(evaluation, "batch_generate", lambda *_, **__: made)
    answers = evaluation.answer(session(tokenizer=tokenizer, most=4), questions([2], [2], [2]))

    assert [Answer("ߊ", "stop", 0), Answer("ߊ", "length", 3), Answer("", "stop", 0)] == answers


def test_kept_batches_are_not_answered_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tokenizer: Any) -> None:
    """
    Rows 1 and 0 are two batches, longest first; the first was kept.
    """
    KeptAnswers(tmp_path, IDENTITY).add("base", {0: ONE})
    asked: list[list[int]] = []

    def answer(_: Session, batch: list[Question]) -> list[Answer]:
        asked.extend(each.prompt for each in batch)
        return [Answer(**TWO[0])]

    monkeypatch.setattr(evaluation, "answer", answer)
    one_rank = session(size=1, kept=KeptAnswers(tmp_path, IDENTITY))
    answers = evaluation.answer_all(one_rank, questions([2], [2, 7]), "base")

    assert ([[2]], [Answer(**TWO[0]), Answer(**ONE[0])]) == (asked, answers)
    assert {0: ONE, 1: TWO} == KeptAnswers(tmp_path, IDENTITY).batches("base")


@pytest.mark.parametrize("cut", [1, 20, 60])
def test_half_a_line_is_dropped(tmp_path: Path, cut: int) -> None:
    """
    A kill or a power cut leaves half a line; the whole lines before it are used.
    """
    kept = KeptAnswers(tmp_path, IDENTITY)
    kept.add("base", {0: ONE})
    whole = (tmp_path / "answers.jsonl").read_bytes()
    kept.add("adapter", {0: TWO})
    data = (tmp_path / "answers.jsonl").read_bytes()
    (tmp_path / "answers.jsonl").write_bytes(data[: len(whole) + cut])
    again = KeptAnswers(tmp_path, IDENTITY)

    assert ({0: ONE}, {}) == (again.batches("base"), again.batches("adapter"))
    assert whole == (tmp_path / "answers.jsonl").read_bytes()


@pytest.mark.parametrize("content", [b"", b"\xff\n", b'"text"\n', b"{}\n{}\n"])
def test_a_file_of_another_evaluation_is_replaced(tmp_path: Path, content: bytes) -> None:
    """
    Another identity, another program's file, or random bytes: none of them holds answers.
    """
    (tmp_path / "answers.jsonl").write_bytes(content)
    kept = KeptAnswers(tmp_path, IDENTITY)

    assert {} == kept.batches("base")
    header = {"identity": IDENTITY, "schema": "thunder.answers/2"}
    kept_header = json.loads((tmp_path / "answers.jsonl").read_text())
    assert {**header, "digest": files.digest(header)} == kept_header


@pytest.mark.parametrize("line", [0, 1, 2])
def test_one_flipped_bit_is_not_believed(tmp_path: Path, line: int, capsys: pytest.CaptureFixture[str]) -> None:
    """
    It could turn a letter of an answer into another, and so a score; the batches beside it are used.
    """
    KeptAnswers(tmp_path, IDENTITY).add("base", {0: ONE, 1: TWO})
    path = tmp_path / "answers.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    for place in range(0, len(lines[line]) - 1, 9):
        harmed = lines[line][:place] + bytes([lines[line][place] ^ 1]) + lines[line][place + 1 :]
        path.write_bytes(b"".join([*lines[:line], harmed, *lines[line + 1 :]]))
        found = KeptAnswers(tmp_path, IDENTITY).batches("base")

        good = {0: ONE, 1: TWO}
        assert found == ({} if line == 0 else {key: good[key] for key in good if key != line - 1})
    assert "what they held is answered again" in capsys.readouterr().err


def test_a_folder_in_place_of_the_file_is_set_aside(tmp_path: Path) -> None:
    """
    It would stop each evaluation for ever.
    """
    (tmp_path / "answers.jsonl/inside").mkdir(parents=True)
    KeptAnswers(tmp_path, IDENTITY).add("base", {0: ONE})

    assert {0: ONE} == KeptAnswers(tmp_path, IDENTITY).batches("base")


def test_answers_that_cannot_be_kept_are_an_error(tmp_path: Path) -> None:
    """
    A full disk must show at once, not after hours.
    """
    kept = KeptAnswers(tmp_path, IDENTITY)
    (tmp_path / "answers.jsonl").unlink()
    (tmp_path / "answers.jsonl").mkdir()

    with pytest.raises(ThunderError) as caught:
        kept.add("base", {0: ONE})
    assert f"{tmp_path}/answers.jsonl: cannot be written: Is a directory; free or unlock it" == str(caught.value)


def lines(row: dict[str, Any], **texts: Answer) -> dict[str, Any]:
    """A line of predictions.jsonl whose models answer "ߊ" unless given."""
    plain = Answer("ߊ", "stop", 0)
    answers = {"base": plain, "adapter": plain, "target": Answer("ߓ", "stop", 0)}
    return evaluation.prediction({"id": "r", "asr_text": "ߋ", "reference_text": "ߊ", **row}, answers | texts)


def test_blanks_around_texts_are_kept_beside_them() -> None:
    """
    A model that only strips a blank has repaired nothing; raw error rates still need the blank.
    """
    assert "raw" not in lines({})
    line = lines({"asr_text": " ߋ", "raw": {"reference_text": "ߊ\n"}}, adapter=Answer("ߊ", "stop", 0, "ߊ "))

    assert ("ߋ", "ߊ", "ߊ", "ߊ") == tuple(line[name] for name in ("asr_text", "reference_text", "base", "adapter"))
    assert {"asr_text": " ߋ", "reference_text": "ߊ\n", "adapter": "ߊ "} == line["raw"]


def test_a_silent_row_is_marked() -> None:
    """
    Its empty reference is one that was given: every letter of an answer is invented.
    """
    line = lines({"asr_text": "", "reference_text": "", "silent": True})

    assert (True, True) == (line["silent"], "question" not in line)
    assert "silent" not in lines({})


def test_a_row_of_a_chat_has_its_question_and_its_own_answer() -> None:
    """
    It has no hypothesis and no reference, so these are all that an answer can be compared with.
    """
    messages = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "<b>ߓ"}]
    line = lines({"asr_text": "", "reference_text": "", "messages": messages})

    assert ("Why?", "ߓ") == (line["question"], line["answer"])
    assert not {"question", "answer"} & lines({"messages": messages}).keys()


def test_rows_of_plain_text_are_not_asked() -> None:
    """
    They have no prompt that a model could answer.
    """
    rows: list[dict[str, Any]] = [
        {"id": "a", "messages": [{"content": "ߊ"}]},
        {"id": "b", "text": "ߊ ߓ", "messages": []},
    ]
    examples = [Example("a", (2, 7, 9, 5), ((2, 4),)), Example("b", (2, 7), ((1, 2),))]

    assert [Question(rows[0], [2, 7], [9, 5])] == evaluation.questions(rows, examples)


def test_forward_passes_are_dealt_by_their_cost() -> None:
    """
    All wait for the slowest rank: the most expensive pass costs as much as the three others.
    """
    assert [[1], [0, 2, 3]] == plan.deal_by_cost([3.0, 8.0, 3.0, 2.0], weights=(1.0, 1.0))
    assert [[1, 2, 3], [0]] == plan.deal_by_cost([3.0, 8.0, 3.0, 2.0], weights=(3.0, 1.0))


@pytest.mark.parametrize(
    ("weights", "takers"),
    [
        ((1.0,), [0]),
        ((1.0, 1.0, 1.0), [0, 1, 2]),
        ((2.0, 1.0), [0, 0, 1]),
        ((1.0, 1.5), [1, 0, 1, 0, 1]),
        ((1.0, 100.0), [1]),
    ],
)
def test_a_faster_rank_answers_more_batches_of_a_round(weights: tuple[float, ...], takers: list[int]) -> None:
    """
    All wait for the slowest at the end of a round. A rank that is far too slow gets nothing.
    """
    assert takers == evaluation.turns(weights)


def test_a_rank_with_other_inputs_is_refused() -> None:
    """
    A machine with an old copy of the data would answer other rows.
    """
    first = json.dumps({"--test-data": "old"}).encode()
    sums = iter([mx.array([len(first)]), mx.array(list(first))])  # the length, then the bytes, of rank 0
    second: Any = SimpleNamespace(rank=1, size=2, sum=lambda _: next(sums))

    with pytest.raises(ThunderError) as caught:
        ranks.check_identity({"--test-data": "new"}, second, "evaluate")
    expected = "rank 1: would not evaluate the same as rank 0: --test-data is old there, new here; "
    assert expected + "bring project, data and model of all hosts to the same state" == str(caught.value)


def test_an_adapter_reaches_a_machine_that_has_none(tmp_path: Path) -> None:
    """
    A training leaves it on the first rank's machine; the copy is deleted after use.
    """
    sums = iter([mx.array(each) for data in (b"weights", b"{}") for each in ([len(data)], list(data))])
    second: Any = SimpleNamespace(rank=1, size=2, sum=lambda _: next(sums))

    with saved_adapter.on_every_rank(tmp_path / "nowhere", second) as folder:
        found = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert {"adapters.safetensors": b"weights", "adapter_config.json": b"{}"} == found
    assert not folder.exists()


def test_every_rank_gets_the_bytes_of_all() -> None:
    """
    Messages may have unequal lengths, and come in rank order.
    """
    messages = [b"ab", b"", "ߊ".encode()]

    for rank in range(3):
        joined = b"".join(messages)
        sums = iter([mx.array([len(each) for each in messages]), mx.array(list(joined))])
        group: Any = SimpleNamespace(rank=rank, size=3, sum=lambda _, sums=sums: next(sums))
        assert messages == ranks.all_gather(messages[rank], group)
