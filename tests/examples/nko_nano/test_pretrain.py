"""The nko-nano base model: its lessons, its training, and the committed folder."""

import json
from pathlib import Path

import pytest

from examples.nko_nano import lexicon, pretrain, rows
from tests.helpers.project_copy import PROJECT
from thunder_train import ThunderError
from thunder_train.core import code_hash, files
from thunder_train.worker import nano

COMMITTED = PROJECT / "models" / "nko-nano-base"
MODULES = {"lexicon": lexicon, "nano": nano, "pretrain": pretrain}
"""Code that decides the committed weights, by its name in the manifest."""


def lessons(count: int, longest: int = pretrain.LONGEST_LIMIT) -> list[tuple[str, str, str]]:
    """(lesson, last question, answer) of the first rows of seed 3."""
    stream = pretrain.Lessons(seed=3)
    stream.longest = longest
    chats = [(name, chat) for name, batch in (stream.batch(8) for _ in range(count)) for chat in batch]
    return [(name, chat[-2]["content"], chat[-1]["content"]) for name, chat in chats]


def test_the_same_seed_gives_the_same_lessons() -> None:
    """
    The manifest contains the digest of the lessons, so they must be reproducible.
    """
    first, again, other = pretrain.Lessons(0), pretrain.Lessons(0), pretrain.Lessons(1)
    for each in (first, again, other):
        each.batch(20)

    assert first.digest == again.digest != other.digest


def test_no_lesson_shows_a_sentence_of_the_data_set() -> None:
    """
    The base answers a held-out row from its vocabulary, and not because it has seen the row.
    """
    _, references = rows.rows(1000, seed=0)
    held_out = {lexicon.normal(row["reference_text"]) for row in references}

    answers = {lexicon.normal(answer) for longest in (6, 15, 36) for _, _, answer in lessons(200, longest)}

    assert set() == held_out & answers
    assert all(map(lexicon.is_for_base, answers))


def test_the_answer_of_a_copy_is_its_hypothesis() -> None:
    """
    The base learns to repeat and not to correct: correction is what the adapter adds.
    """
    asked = {(question.split("Hypothesis: ")[1], answer) for name, question, answer in lessons(100) if name == "copy"}

    assert asked
    assert all(hypothesis == answer for hypothesis, answer in asked)


def test_the_copy_prompt_is_the_recipes_prompt() -> None:
    """
    The base has seen the prompt of recipes/nko-nano.toml, so without an adapter it copies the hypothesis.
    """
    stream = pretrain.Lessons(0)
    stream.longest = pretrain.LONGEST_LIMIT
    chats = next(batch for name, batch in (stream.batch(1) for _ in range(50)) if name == "copy")
    system, user, answer = (message["content"] for message in chats[0])
    template = (PROJECT / "templates/prompts/correct.j2").read_text(encoding="utf-8").strip()
    partition = user.splitlines()[0].removeprefix("Partition: ")
    expected = template.replace("{{ partition }}", partition).replace("{{ asr_text }}", answer)

    assert "Correct it." == system
    assert expected == user


def test_texts_are_short_at_first() -> None:
    """
    A small model learns nothing from long rows at first, and short rows in minutes.
    """
    answers = [answer for name, _, answer in lessons(100, longest=6) if name == "repeat"]

    assert answers
    assert 6 >= min(map(len, answers))


@pytest.mark.mlx
def test_the_same_flags_give_the_same_folder(tmp_path: Path) -> None:
    """
    Seed, lessons and one thread decide every bit, so the committed weights are reproducible.
    """
    flags = ["--steps", "3", "--rows", "4", "--layers", "1", "--width", "32", "--heads", "2", "--kv-heads", "1"]
    for name in ("a", "b"):
        pretrain.main(["--output", str(tmp_path / name), *flags, "--hidden", "32"])
    digests = [{path.name: files.sha256(path) for path in sorted((tmp_path / name).iterdir())} for name in ("a", "b")]

    assert digests[0] == digests[1]
    assert {*pretrain.WRITTEN, "manifest.json"} == digests[0].keys()


def test_steps_below_one_are_refused(tmp_path: Path) -> None:
    """
    thunder_train.worker.nano writes an untrained model.
    """
    with pytest.raises(ThunderError) as caught:
        pretrain.main(["--output", str(tmp_path), "--steps", "0"])

    assert "--steps, --rows: must be 1 or more" == str(caught.value)


def test_the_committed_folder_matches_its_manifest() -> None:
    """
    Weights, tokenizer and the code that decides them: a change of one without the others fails here.
    """
    manifest = json.loads((COMMITTED / "manifest.json").read_text(encoding="utf-8"))
    code = {name: code_hash.code_digest(Path(str(module.__file__))) for name, module in MODULES.items()}

    assert manifest["files"] == {name: files.sha256(COMMITTED / name) for name in pretrain.WRITTEN}
    assert manifest["code"] == code
    assert 4_000_000 > (COMMITTED / "model.safetensors").stat().st_size


@pytest.mark.mlx
def test_the_committed_base_copies_its_prompt() -> None:
    """
    Without an adapter it nearly always repeats rows with errors: the base corrects nothing.
    """
    from mlx_lm.generate import batch_generate

    from thunder_train.worker import model
    from thunder_train.worker.chat import Chat

    network, tokenizer = model.load(str(COMMITTED), "")
    chat = Chat(tokenizer)
    predictions, _ = rows.rows(40, seed=9)
    hypotheses = [row["asr_text"] for row in predictions]
    turns = [
        [
            {"role": "system", "content": pretrain.SYSTEM},
            {"role": "user", "content": f"Partition: boundary\nHypothesis: {text}"},
        ]
        for text in hypotheses
    ]
    prompts = [chat.encode(chat.text(messages, is_prompt=True)) for messages in turns]
    answers = batch_generate(network, tokenizer, prompts, max_tokens=50).texts

    assert 30 <= sum(text == answer for text, answer in zip(hypotheses, answers, strict=True))
