"""Losses and answers of base and adapter."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.helpers.project_copy import PROJECT
from tests.worker.conftest import TEXTS, inline, python, row, write_rows
from thunder_train.core import files

pytestmark = pytest.mark.ranks

Process = subprocess.CompletedProcess[str]
Run = tuple[Process, Path]
"""A process and its output folder."""


@pytest.fixture(scope="module")
def many(folder: Path) -> Path:
    """Seven test rows of unequal length."""
    return write_rows(folder / "many.jsonl", [row(i, text * (1 + i % 3)) for i, text in enumerate(TEXTS[:7])])


@pytest.fixture(scope="module")
def plain(folder: Path, adapter: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """(process, folder) of a run with nothing unusual."""
    out = tmp_path_factory.mktemp("plain")
    return generate(folder, adapter, out), out


def flags_of(adapter: Path, out: Path, **changed: object) -> list[str]:
    """The program's flags; its files land in out."""
    chosen: dict[str, object] = {
        "model": "nano",
        "adapter_path": adapter,
        "valid_data": "valid.jsonl",
        "test_data": "test.jsonl",
    }
    chosen |= {"max_tokens": 6, "batch_size": 4, "predictions": out / "p.jsonl", "losses": out / "l.json"}
    return [str(part) for name, value in (chosen | changed).items() for part in (f"--{name}".replace("_", "-"), value)]


def generate(folder: Path, adapter: Path, out: Path, **changed: object) -> Process:
    """Run the program as the only rank."""
    out.mkdir(exist_ok=True)
    return inline("thunder_train.worker.generate", flags_of(adapter, out, **changed), folder)


def generate_by_two(folder: Path, adapter: Path, out: Path, **changed: object) -> Process:
    """Run it on the two ranks of hosts.json."""
    out.mkdir()
    start = ["--hostfile", "hosts.json", "--log-dir", str(out / "logs"), "--module", "thunder_train.worker.generate"]
    return python("thunder_train.launch", start + flags_of(adapter, out, **changed), folder)


def written(out: Path) -> tuple[str, str]:
    """Both files of a run."""
    return (out / "p.jsonl").read_text(), (out / "l.json").read_text()


def test_base_and_adapter_are_scored_on_both_splits(adapter: Path, plain: Run) -> None:
    """
    The adapter's loss means something only next to the base model's on the same rows.
    """
    done, out = plain
    losses = files.read_json(out / "l.json")
    trained = json.loads((adapter / "done.json").read_text())

    assert (0, "") == (done.returncode, done.stderr)
    assert {"base", "adapter", "environment", "max_tokens", "adapter_sha256"} == set(losses)
    assert trained["losses"]["valid"][-1][1] == pytest.approx(losses["adapter"]["valid"]["loss"], abs=1e-5)
    assert losses["adapter"]["valid"]["loss"] < losses["base"]["valid"]["loss"]
    assert trained["tokens"]["valid_targets"] == losses["base"]["valid"]["tokens"]
    assert losses["base"]["test"]["perplexity"] == pytest.approx(np.exp(losses["base"]["test"]["loss"]), rel=1e-5)


def test_the_adapter_that_answered_is_named_by_its_hash(adapter: Path, plain: Run) -> None:
    """
    A promotion must be decided by the answers of the adapter that the training wrote.
    """
    trained = json.loads((adapter / "done.json").read_text())["adapter"]["sha256"]

    assert trained == files.read_json(plain[1] / "l.json")["adapter_sha256"]


def test_every_test_row_gets_two_answers_and_how_they_ended(plain: Run) -> None:
    """
    The host scores texts without turn markers, in the rows' order; the probe for collapse reads the other fields.
    """
    predictions = files.read_jsonl(plain[1] / "p.jsonl")

    names = {"id", "group", "partition", "asr_text", "reference_text", "source", "witness", "base", "adapter"}
    names |= {"base_finish", "base_special", "adapter_finish", "adapter_special"}
    assert names == set(predictions[0])
    assert TEXTS[3:6] == [each["reference_text"] for each in predictions]
    assert not any("<" in each["base"] + each["adapter"] for each in predictions)
    assert {"length"} == {each["base_finish"] for each in predictions}


def test_source_and_witness_of_a_row_are_carried(folder: Path, adapter: Path, tmp_path: Path) -> None:
    """
    Each decision is reported with them; a row may have none.
    """
    witness = {"slice_id": "s", "token": "0" * 32}
    rows = [row(0, TEXTS[0], source="report.json", witness=witness), row(1, TEXTS[1])]
    generate(folder, adapter, tmp_path, test_data=write_rows(tmp_path / "rows.jsonl", rows))

    carried = [(each["source"], each["witness"]) for each in files.read_jsonl(tmp_path / "p.jsonl")]
    assert [("report.json", witness), ("", {})] == carried


def test_each_kind_of_row_gets_what_it_can_have(folder: Path, adapter: Path, tmp_path: Path) -> None:
    """
    Plain text has a loss, a chat its own answer, silence its mark; blanks are kept for raw rates.
    """
    question, answer = {"role": "user", "content": "ߊ?"}, {"role": "assistant", "content": "ߓߊ"}
    empty = {"asr_text": "", "reference_text": ""}
    silent = [*row(0, TEXTS[0])["messages"][:2], {"role": "assistant", "content": ""}]
    rows = [
        row(0, TEXTS[0], raw={"asr_text": f" {TEXTS[0][1:]}"}),
        {"id": "text", "messages": [], "text": TEXTS[1], "partition": "", **empty},
        {"id": "chat", "messages": [question, answer], "partition": "", **empty},
        {"id": "silent", "messages": silent, "silent": True, "partition": "", **empty},
    ]
    done = generate(folder, adapter, tmp_path, test_data=write_rows(tmp_path / "rows.jsonl", rows))
    spoken, chat, nothing = files.read_jsonl(tmp_path / "p.jsonl")
    losses = files.read_json(tmp_path / "l.json")

    assert (0, "") == (done.returncode, done.stderr)
    assert ({"asr_text": f" {TEXTS[0][1:]}"}, "silent" in spoken) == (spoken["raw"], False)
    assert ("chat", "ߊ?", "ߓߊ") == (chat["id"], chat["question"], chat["answer"])
    assert ("silent", True, False) == (nothing["id"], nothing["silent"], "question" in nothing)
    answers = sum(len(text) + 1 for text in (TEXTS[0], "ߓߊ", ""))  # with the end of each
    assert (1, answers + len(TEXTS[1])) == (losses["text_rows"], losses["base"]["test"]["tokens"])


def test_answers_do_not_depend_on_the_batch(folder: Path, adapter: Path, many: Path, tmp_path: Path) -> None:
    """
    Rows of unequal length share a batch; padding must not show in the answers, one by one or together.
    """
    for size in (1, 4, 7):
        generate(folder, adapter, tmp_path / str(size), batch_size=size, max_tokens=16, test_data=many)

    one, four, seven = (written(tmp_path / size)[0] for size in ("1", "4", "7"))
    assert one == four == seven


@pytest.mark.parametrize("uneven", [pytest.param({}, marks=pytest.mark.slow), {"weights": "1.0,2.0"}])
def test_two_ranks_write_the_bytes_of_one(
    folder: Path, adapter: Path, many: Path, tmp_path: Path, uneven: dict[str, object]
) -> None:
    """
    The number of ranks must not change an answer: batches and forward passes are made from all rows, then dealt.
    """
    changed = {"batch_size": 2, "max_tokens": 16, "test_data": many}
    generate(folder, adapter, tmp_path / "one", **changed)
    done = generate_by_two(folder, adapter, tmp_path / "two", **changed, **uneven)

    assert (0, "") == (done.returncode, done.stderr)
    assert written(tmp_path / "one") == written(tmp_path / "two")


def test_without_a_number_the_cap_is_half_again_the_longest_answer(folder: Path, adapter: Path, tmp_path: Path) -> None:
    """
    It may not depend on the test rows, which stand for rows whose answers are not known yet.
    """
    done = generate(folder, adapter, tmp_path, max_tokens=0, train_data="train.jsonl")

    longest = max(len(text) for text in TEXTS) + 1  # a token a letter, and the end of turn
    assert (0, "") == (done.returncode, done.stderr)
    assert longest * 3 // 2 + 8 == files.read_json(tmp_path / "l.json")["max_tokens"]


def test_bad_numbers_are_reported_together(folder: Path, adapter: Path, tmp_path: Path) -> None:
    """
    All problems at once, each with its flag.
    """
    done = generate(folder, adapter, tmp_path, max_tokens=0, batch_size=0, stall_timeout="nan")

    expected = "--batch-size: is 0; give at least 1 row\n"
    expected += "--stall-timeout: is nan; give a whole number\n"
    expected += "--max-tokens: 0 takes the length from the training rows, which are not given; "
    expected += "give --train-data, or a number of tokens\n"
    assert (2, expected) == (done.returncode, done.stderr)


@pytest.mark.slow
def test_a_killed_evaluation_resumes_and_gives_the_same_bytes(
    folder: Path, adapter: Path, many: Path, tmp_path: Path
) -> None:
    """
    Hours of answers are not made twice: batches on disk are used, and the others are answered.
    """
    changed = {"batch_size": 1, "max_tokens": 80, "test_data": many}
    generate(folder, adapter, tmp_path / "whole", **changed)
    out, partial = tmp_path / "out", tmp_path / "partial"
    out.mkdir()
    argv = [sys.executable, "-m", "thunder_train.worker.generate", *flags_of(adapter, out, partial=partial, **changed)]
    killed = subprocess.Popen(
        argv, cwd=folder, env={**os.environ, "PYTHONPATH": str(PROJECT)}, stdout=subprocess.DEVNULL
    )
    limit = time.monotonic() + 60
    while not (partial / "answers.jsonl").is_file() or lines(partial) < 4:
        assert time.monotonic() < limit, "waited in vain"
        time.sleep(0.001)
    killed.kill()
    killed.wait()
    kept = lines(partial) - 1
    done = generate(folder, adapter, out, partial=partial, **changed)

    assert 0 < kept < 14
    assert f"base: {min(kept, 7)} of 7 batches were answered before\n" in done.stdout
    assert written(tmp_path / "whole") == written(out)


def lines(partial: Path) -> int:
    """Whole lines of the kept answers."""
    return (partial / "answers.jsonl").read_bytes().count(b"\n")


def test_two_ranks_resume_the_evaluation_of_one(folder: Path, adapter: Path, many: Path, tmp_path: Path) -> None:
    """
    Rank 0 keeps all answers, so another number of ranks can use them.
    """
    changed = {"batch_size": 2, "max_tokens": 16, "test_data": many, "partial": tmp_path / "partial"}
    generate(folder, adapter, tmp_path / "one", **changed)
    kept = (tmp_path / "partial/answers.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "partial/answers.jsonl").write_text("".join(kept[:4]) + kept[4][:30])
    done = generate_by_two(folder, adapter, tmp_path / "two", **changed)

    assert "base: 3 of 4 batches were answered before\n" in done.stdout
    assert written(tmp_path / "one") == written(tmp_path / "two")
    assert sorted(kept) == sorted((tmp_path / "partial/answers.jsonl").read_text().splitlines(keepends=True))


@pytest.mark.parametrize(
    ("changed", "differing"),
    [
        ({"max_tokens": 7}, {"--max-tokens"}),
        ({"batch_size": 3}, {"--batch-size"}),
        ({"test_data": "train.jsonl"}, {"--test-data"}),
        ({"max_tokens": 0, "train_data": "train.jsonl"}, {"--max-tokens", "--train-data"}),
        ({"model": "other"}, {"model"}),
        ({"partial": "elsewhere", "losses": "elsewhere", "stall_timeout": 9}, set()),
    ],
)
def test_kept_answers_are_of_exactly_these_inputs(
    folder: Path, adapter: Path, monkeypatch: pytest.MonkeyPatch, changed: dict[str, object], differing: set[str]
) -> None:
    """
    Another model, other rows or flags give other answers; other paths and timeouts give the same.
    """
    from thunder_train.worker import evaluation
    from thunder_train.worker import generate as program

    monkeypatch.chdir(folder)
    (folder / "other").mkdir(exist_ok=True)
    (folder / "other/config.json").write_text("{}")
    plain = evaluation.identity(program.parse(flags_of(adapter, folder)), adapter)
    other = evaluation.identity(program.parse(flags_of(adapter, folder, **changed)), adapter)

    assert differing == {name for name in plain.keys() | other.keys() if plain.get(name) != other.get(name)}


def test_kept_answers_are_of_exactly_this_adapter(
    folder: Path, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    A repeated training writes other weights under the same name.
    """
    from thunder_train.worker import evaluation
    from thunder_train.worker import generate as program

    monkeypatch.chdir(folder)
    for name in ("adapters.safetensors", "adapter_config.json"):
        (tmp_path / name).write_bytes((adapter / name).read_bytes() + b" ")
    task = program.parse(flags_of(adapter, folder))
    plain, other = evaluation.identity(task, adapter), evaluation.identity(task, tmp_path)

    assert {"adapters.safetensors", "adapter_config.json"} == {key for key in plain if plain[key] != other[key]}


def test_an_empty_test_split_has_no_loss_and_no_answers(folder: Path, adapter: Path, tmp_path: Path) -> None:
    """
    A recipe may keep no test rows; the loss is then unknown, not zero.
    """
    (folder / "empty.jsonl").write_text("")
    done = generate(folder, adapter, tmp_path, test_data="empty.jsonl")

    assert 0 == done.returncode
    expected = {"loss": None, "perplexity": None, "tokens": 0, "dropped": 0}
    assert expected == files.read_json(tmp_path / "l.json")["base"]["test"]
    assert "" == (tmp_path / "p.jsonl").read_text()


def test_an_adapter_with_a_nan_is_refused(folder: Path, adapter: Path, tmp_path: Path) -> None:
    """
    It would answer with padding up to the cap, and look like a slow model.
    """
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "adapter_config.json").write_bytes((adapter / "adapter_config.json").read_bytes())
    tensors = load_file(adapter / "adapters.safetensors")
    first = min(tensors)
    tensors[first][0, 0] = np.nan
    save_file(tensors, broken / "adapters.safetensors")
    done = generate(folder, broken, tmp_path)

    expected = f"1 tensors are not finite, first {first}; train again with a lower learning rate\n"
    assert (2, f"{broken / 'adapters.safetensors'}: {expected}") == (done.returncode, done.stderr)


def test_an_adapter_of_another_model_is_refused(folder: Path, adapter: Path, tmp_path: Path) -> None:
    """
    Wrong shapes give one message, not a traceback.
    """
    from thunder_train.worker import nano

    nano.write(tmp_path / "other", nano.Shape(layers=2, width=64, heads=2, kv_heads=1, hidden=48), seed=0)
    done = generate(folder, adapter, tmp_path, model=tmp_path / "other")

    assert 2 == done.returncode
    assert done.stderr.startswith(f"{adapter}: does not fit the model: ")
    assert "Traceback" not in done.stderr
