"""The nano base that knows words: its lessons, its training, and the folder that is shipped."""

import json
from pathlib import Path

import pytest

from examples.nko_nano import lexicon, pretrain
from examples.nko_nano import rows as nano_rows
from tests.helpers.project_copy import PROJECT
from thunder_train import ThunderError
from thunder_train.core import files
from thunder_train.worker import nano

SHIPPED = PROJECT / "models" / "nko-nano-base"
MODULES = {"lexicon": lexicon, "nano": nano, "pretrain": pretrain}
"""What made the shipped weights, by its name in the manifest."""


def lessons(count: int, longest: int = pretrain.FULL) -> list[tuple[str, str, str]]:
    """(lesson, last question, answer) of the first rows of seed 3."""
    made = pretrain.Lessons(seed=3)
    made.longest = longest
    rows = [(name, row) for name, batch in (made.batch(8) for _ in range(count)) for row in batch]
    return [(name, row[-2]["content"], row[-1]["content"]) for name, row in rows]


def test_the_same_seed_gives_the_same_lessons():
    """
    The manifest's digest of the lessons is a promise that they can be made again.
    """
    first, again, other = pretrain.Lessons(0), pretrain.Lessons(0), pretrain.Lessons(1)
    for each in (first, again, other):
        each.batch(20)

    assert first.digest == again.digest != other.digest


def test_no_lesson_shows_a_sentence_of_the_data_set():
    """
    Whatever the base says of a held-out row comes from its words, not from having read the row.
    """
    _, references = nano_rows.rows(1000, seed=0)
    kept_back = {lexicon.normal(row["reference_text"]) for row in references}

    answers = {lexicon.normal(answer) for longest in (6, 15, 36) for _, _, answer in lessons(200, longest)}

    assert set() == kept_back & answers
    assert all(map(lexicon.is_for_base, answers))


def test_the_answer_of_a_copy_is_its_hypothesis():
    """
    The base learns to repeat and not to correct: correcting is what the adapter adds.
    """
    asked = {(question.split("Hypothesis: ")[1], answer) for name, question, answer in lessons(100) if name == "copy"}

    assert asked
    assert all(hypothesis == answer for hypothesis, answer in asked)


def test_the_copy_prompt_is_the_recipes_prompt():
    """
    The base knows the very prompt of recipes/nko-nano.toml, so its blind answers are about the recogniser's own text.
    """
    made = pretrain.Lessons(0)
    made.longest = pretrain.FULL
    rows = next(batch for name, batch in (made.batch(1) for _ in range(50)) if name == "copy")
    system, user, answer = (message["content"] for message in rows[0])
    template = (PROJECT / "templates/prompts/correct.j2").read_text(encoding="utf-8").strip()
    partition = user.splitlines()[0].removeprefix("Partition: ")
    expected = template.replace("{{ partition }}", partition).replace("{{ asr_text }}", answer)

    assert "Correct it." == system
    assert expected == user


def test_texts_begin_short():
    """
    Long rows from the start teach a small model nothing; short ones are learnt in minutes.
    """
    answers = [answer for name, _, answer in lessons(100, longest=6) if name == "repeat"]

    assert answers
    assert 6 >= min(map(len, answers))


@pytest.mark.mlx
def test_the_same_flags_give_the_same_folder(tmp_path):
    """
    Seed, lessons and one thread decide every bit, so the shipped weights can be made again.
    """
    flags = ["--steps", "3", "--rows", "4", "--layers", "1", "--width", "32", "--heads", "2", "--kv-heads", "1"]
    for name in ("a", "b"):
        pretrain.main(["--output", str(tmp_path / name), *flags, "--hidden", "32"])
    digests = [{path.name: files.sha256(path) for path in sorted((tmp_path / name).iterdir())} for name in ("a", "b")]

    assert digests[0] == digests[1]
    assert {*pretrain.WRITTEN, "manifest.json"} == digests[0].keys()


def test_steps_below_one_are_refused(tmp_path):
    """
    An untrained base has a program of its own, nano.
    """
    with pytest.raises(ThunderError) as caught:
        pretrain.main(["--output", str(tmp_path), "--steps", "0"])

    assert "--steps, --rows: must be 1 or more" == str(caught.value)


def test_the_shipped_folder_is_the_one_that_its_manifest_tells_of():
    """
    Weights, tokenizer and the code that made them: a change of any of them without the others is found here.
    """
    manifest = json.loads((SHIPPED / "manifest.json").read_text(encoding="utf-8"))
    code = {name: files.code_digest(Path(module.__file__)) for name, module in MODULES.items()}

    assert manifest["files"] == {name: files.sha256(SHIPPED / name) for name in pretrain.WRITTEN}
    assert manifest["code"] == code
    assert 4_000_000 > (SHIPPED / "model.safetensors").stat().st_size


@pytest.mark.mlx
def test_the_shipped_base_copies_what_it_reads():
    """
    Its blind answers to rows with errors are those rows, nearly always: no correction is hidden in the base.
    """
    from mlx_lm.generate import batch_generate

    from thunder_train.worker import model
    from thunder_train.worker.batching import tokens

    network, tokenizer = model.load(str(SHIPPED), "")
    predictions, _ = nano_rows.rows(40, seed=9)
    heard = [row["asr_text"] for row in predictions]
    prompts = [
        tokens.render(
            [
                {"role": "system", "content": pretrain.SYSTEM},
                {"role": "user", "content": f"Partition: boundary\nHypothesis: {text}"},
            ],
            tokenizer,
            "test",
            answer=False,
        )
        for text in heard
    ]
    answers = batch_generate(network, tokenizer, prompts, max_tokens=50).texts

    assert 30 <= sum(text == answer for text, answer in zip(heard, answers, strict=True))
