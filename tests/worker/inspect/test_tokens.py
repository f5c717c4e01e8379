"""The report of how a training would see its rows."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from tests.worker.conftest import flags, inline, python, row, write_rows
from thunder_train import ThunderError
from thunder_train.worker.args import parse

if TYPE_CHECKING:
    from thunder_train.worker.inspect.tokens import Base

pytestmark = pytest.mark.mlx

Row = dict[str, Any]
ReportOf = Callable[..., dict[str, Any]]

CHANGED = {"train_on": "all", "too_long": "split", "max_seq_len": 60, "global_batch_size": 3, "num_iters": 1, "seed": 7}
ANSWERS = ["ߊߋߌ", "ߓߊ ߓߋ ߓߌ " * 2, "ߞߊ", "ߞߋ ߟߌ ߡߊ", "ߛߊ " * 5, "ߕߊ ߕߋ", "ߘ" * 70, "ߝߊ"]


@pytest.fixture(scope="module")
def base(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> "Base":
    """The nano model without its weights."""
    from thunder_train.worker.inspect import tokens

    bare = tmp_path_factory.mktemp("preview") / "bare"
    shutil.copytree(folder / "nano", bare, ignore=shutil.ignore_patterns("*.safetensors"))
    return tokens.load(parse(flags(Path("adapter"), model=bare)))


@pytest.fixture
def report_of(tmp_path: Path, base: "Base") -> ReportOf:
    """A function: training rows and changed flags -> the report, with one validation row."""
    from thunder_train.worker.inspect import tokens

    def report_of(rows: list[Row], shown: int = 0, **changed: object) -> dict[str, Any]:
        data = {"train_data": tmp_path / "train.jsonl", "valid_data": tmp_path / "valid.jsonl"}
        write_rows(data["train_data"], rows)
        write_rows(data["valid_data"], [row(1, "ߞߊ")])
        settings = parse(flags(Path("adapter"), **data, **changed))
        return tokens.report(replace(settings, token_cache=tmp_path / "tokens"), base, ranks=1, rows=shown)

    return report_of


def chat(number: int, *contents: str) -> Row:
    """A row of alternating user and assistant messages."""
    messages = [{"role": ("user", "assistant")[i % 2], "content": each} for i, each in enumerate(contents)]
    return {"id": f"row-{number}", "messages": messages}


def test_it_reports_what_the_training_then_does(folder: Path, tmp_path: Path) -> None:
    """
    The same rows, tokens and targets, the same rows dropped and split: a wrong report is worse than none.
    """
    write_rows(tmp_path / "train.jsonl", [chat(i, "ߊ", "ߋ", text, text) for i, text in enumerate(ANSWERS)])
    write_rows(tmp_path / "valid.jsonl", [row(1, "ߞߊ")])
    arguments = flags(tmp_path / "out" / "adapter", model=folder / "nano", **CHANGED)
    trained = inline("thunder_train.worker", arguments, tmp_path)
    inspected = inline("thunder_train.worker.inspect.tokens", [*arguments, "--json"], tmp_path)

    assert (0, 0) == (trained.returncode, inspected.returncode), trained.stderr + inspected.stderr
    done = json.loads((tmp_path / "out" / "adapter" / "done.json").read_text())
    result = json.loads(inspected.stdout)
    splits = {name: split["training"] for name, split in result["splits"].items()}
    for key in ("rows", "dropped", "split"):
        assert done[key] == {name: split[key] for name, split in splits.items()}
    assert done["tokens"] == {name: split["tokens"] for name, split in splits.items()} | {
        f"{name}_targets": split["targets"] for name, split in splits.items()
    }
    assert (1, 2) == (done["dropped"]["train"], done["split"]["train"])
    assert (done["packed"], done["rows_per_step"]) == (not result["not_packed"], result["rows_per_step"])


@pytest.mark.parametrize("ranks", [1, 3])
@pytest.mark.parametrize("packing", ["auto", "never"])
def test_padding_is_that_of_the_training_batches(tmp_path: Path, base: "Base", packing: str, ranks: int) -> None:
    """
    Padding is counted in the batches that every rank will compute, over each step of the first epoch.
    """
    from thunder_train.worker.batching.tokens import Policy, read
    from thunder_train.worker.inspect import tokens
    from thunder_train.worker.ranks import Ranks
    from thunder_train.worker.train import setup

    rows = write_rows(tmp_path / "rows.jsonl", [row(i, text) for i, text in enumerate(ANSWERS)])
    changed = CHANGED | {"packing": packing, "max_seq_len": 200}
    settings = parse(flags(Path("adapter"), train_data=rows, valid_data=rows, **changed))
    split = read(rows, base.chat, Policy(200, "split", "all"))
    ready: Any = SimpleNamespace(
        model=base.model, splits={"train": split}, not_packed=packing == "never", not_kept="no"
    )
    feeds = [setup._loader(settings, ready, "train", Ranks(rank, ranks)) for rank in range(ranks)]
    expected = sum(batch.padded_tokens for feed in feeds for step in range(3) for batch in feed.step(step))

    result = tokens.report(settings, base, ranks, rows=0)["splits"]["train"]["training"]

    assert (3, 8) == (result["steps_per_epoch"], result["rows_laid_out"])
    assert split.tokens - 8 == result["real_tokens"]
    assert expected == result["computed_tokens"]
    assert round((split.tokens - 8) / expected, 4) == result["packing_efficiency"]


def test_the_tokenizer_is_that_of_the_training_and_loads_without_weights(folder: Path, tmp_path: Path) -> None:
    """
    Users ask whether to download gigabytes before they do. The tokens that end a turn come from three files.
    """
    from thunder_train.worker import model
    from thunder_train.worker.inspect import tokens

    shutil.copytree(folder / "nano", tmp_path / "nano")
    (tmp_path / "nano" / "generation_config.json").write_text('{"eos_token_id": [5, 1]}')
    _, trained = model.load(str(tmp_path / "nano"), "")
    (tmp_path / "nano" / "model.safetensors").unlink()
    inspected = tokens.load(parse(flags(Path("adapter"), model=tmp_path / "nano"))).tokenizer

    assert trained.backend_tokenizer.to_str() == inspected.backend_tokenizer.to_str()
    assert (trained.chat_template, {1, 5}) == (inspected.chat_template, inspected.eos_token_ids)
    assert {1, 5} == trained.eos_token_ids


def test_statistics_of_a_split(report_of: ReportOf) -> None:
    """
    Rows of 36 to 46 tokens whose answers and ends of turns are targets; nano knows all their characters.
    """
    split = report_of([row(i, "ߊ" * (i + 1)) for i in range(6)])["splits"]["train"]

    assert {"min": 36, "median": 40, "p95": 46, "max": 46, "total": 246} == split["tokens"]
    assert [(low, low + 1, 1) for low in range(36, 47, 2)] == split["histogram"]
    assert (6, [], 0, "") == tuple(split[key] for key in ("rows", "unusable", "over_max_seq_len", "stop"))
    answers, prompts = 1 + 2 + 3 + 4 + 5 + 6, 6 * len("Correct.") + 0 + 1 + 2 + 3 + 4 + 5
    assert (answers + 6, round(27 / 246, 4)) == (split["targets"], split["supervised"])
    assert round(246 / (answers + prompts), 4) == split["tokens_per_character"]
    assert round(27 / 21, 4) == split["targets_per_character"]
    assert (0, 0) == (split["unknown_tokens"], split["byte_tokens"])


def test_every_token_but_the_first_is_a_target_where_all_is_trained_on(report_of: ReportOf) -> None:
    """
    The report said what a training on the last answers would do.
    """
    split = report_of([row(i, "ߊ" * (i + 1)) for i in range(6)], train_on="everything")["splits"]["train"]

    assert (246 - 6, 246 - 6) == (split["targets"], split["training"]["targets"])
    letters = 1 + 2 + 3 + 4 + 5 + 6 + 6 * len("Correct.") + 0 + 1 + 2 + 3 + 4 + 5
    assert round(240 / letters, 4) == split["targets_per_character"]


def test_only_a_part_of_many_rows_is_batched_and_the_report_says_so(
    report_of: ReportOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Whole steps of the first epoch: the share of padding does not need a million rows.
    """
    from thunder_train.worker.inspect import token_statistics, tokens

    monkeypatch.setattr(token_statistics, "BATCHED_ROWS", 5)
    result = report_of([row(i, "ߊ" * (i + 1)) for i in range(6)], batch_size=2)

    assert 4 == result["splits"]["train"]["training"]["rows_laid_out"]
    (line,) = (line for line in tokens.lines(result) if line.startswith("packing efficiency"))
    assert "%; 4 rows " in line


@pytest.mark.parametrize(
    ("too_long", "expected"),
    [("drop", (1, 1, 0, 40)), ("split", (3, 0, 1, 158))],
)
def test_dropped_and_split_rows_are_counted(
    report_of: ReportOf, too_long: str, expected: tuple[int, int, int, int]
) -> None:
    """
    A row of 40 tokens, and a row of 64 whose prompt has 48: dropped, or its 16 targets in rows of 60 and 58 tokens.
    """
    result = report_of([row(1, "ߞߊߞ"), row(2, "ߞ" * 15)], too_long=too_long, max_seq_len=60)["splits"]["train"]

    assert 1 == result["over_max_seq_len"]
    training = result["training"]
    assert expected == tuple(training[key] for key in ("rows", "dropped", "split", "tokens"))


def test_a_row_of_max_seq_len_tokens_is_not_long(report_of: ReportOf) -> None:
    """
    max_seq_len is the longest allowed row, and nothing is cut from it.
    """
    split = report_of([row(1, "ߞߊߞ")], max_seq_len=40)["splits"]["train"]

    assert (40, 0, "") == (split["tokens"]["max"], split["over_max_seq_len"], split["stop"])
    assert 1 == split["training"]["rows"]


def test_a_training_that_would_refuse_long_rows_is_reported_to_stop(report_of: ReportOf) -> None:
    """
    There are no statistics of batches then, but those of the rows.
    """
    from thunder_train.worker.inspect import tokens

    result = report_of([row(1, "ߞߊߞ"), row(2, "ߞ" * 15)], max_seq_len=60)
    split = result["splits"]["train"]

    assert ("1 rows are longer than max_seq_len, and too_long is refuse", None) == (split["stop"], split["training"])
    lines = list(tokens.lines(result))
    assert f"\nthe training would stop: {split['path']}: {split['stop']}" in lines
    assert "max_seq_len 60, too_long refuse, train_on last; 1 rows per step; rows are packed" == lines[0]
    assert ["rows", "over", "60", "tokens", "1", "0"] == lines[5].split()


def test_unusable_rows_are_counted_by_problem_and_some_are_named(report_of: ReportOf) -> None:
    """
    The training lists all of them and stops; the report counts them and names a few.
    """
    from thunder_train.worker.inspect import tokens

    empty: Row = row(1, "ߞߊ")
    open_ended: Row = row(2, "ߞߊ")
    empty["messages"][-1]["content"] = ""
    open_ended["messages"].pop()
    result = report_of([empty, row(3, "ߞߋ"), open_ended, {"chat": "none"}])
    split = result["splits"]["train"]
    path = split["path"]

    assert [
        {
            "what": "has no target: the last message is not an answer",
            "hint": "end it with an answer",
            "rows": 2,
            "first": [f"{path}:1", f"{path}:3"],
        },
        {
            "what": "has no `messages` with role and content",
            "hint": "write ChatML rows",
            "rows": 1,
            "first": [f"{path}:4"],
        },
    ] == split["unusable"]
    assert (4, 38, "3 rows cannot be trained on") == (split["rows"], split["tokens"]["total"], split["stop"])
    expected = f"  has no target: the last message is not an answer: 2 rows, {path}:1, {path}:3; end it with an answer"
    assert expected in list(tokens.lines(result))


@pytest.mark.parametrize(
    ("rows", "changed", "stop"),
    [
        ([], {}, "holds no row to use"),
        ([row(1, "ߞߊ")], {"too_long": "drop", "max_seq_len": 20}, "holds no row to use"),
        ([row(1, "ߞߊ")], {"batch_size": 2}, "has 1 rows, fewer than the 2 of one step"),
    ],
)
def test_a_training_without_enough_rows_is_reported_to_stop(
    report_of: ReportOf, rows: list[Row], changed: dict[str, Any], stop: str
) -> None:
    """
    With the message of the training, before eight machines load a model.
    """
    from thunder_train.worker.inspect import tokens

    result = report_of(rows, shown=3, **changed)

    assert (stop, None) == tuple(result["splits"]["train"][key] for key in ("stop", "training"))
    assert len(rows) == len(result["preview"])
    assert f"\nthe training would stop: {result['splits']['train']['path']}: {stop}" in list(tokens.lines(result))


def test_bytes_and_unknown_tokens_are_counted(tmp_path: Path, folder: Path, report_of: ReportOf) -> None:
    """
    A vocabulary with bytes needs two tokens for such a letter; one without bytes loses the letter.
    """
    from thunder_train.worker.inspect import tokens

    with_bytes = report_of([row(1, "ߞɛ")])["splits"]["train"]  # ɛ in the hypothesis and in the answer, two bytes each
    shutil.copytree(folder / "nano", tmp_path / "without-bytes", ignore=shutil.ignore_patterns("*.safetensors"))
    tokenizer = json.loads((tmp_path / "without-bytes" / "tokenizer.json").read_text())
    tokenizer["model"]["byte_fallback"] = False
    (tmp_path / "without-bytes" / "tokenizer.json").write_text(json.dumps(tokenizer))
    settings = parse(
        flags(
            Path("adapter"),
            model=tmp_path / "without-bytes",
            train_data=with_bytes["path"],
            valid_data=with_bytes["path"],
        )
    )
    without_bytes = tokens.report(settings, tokens.load(settings), 1, 0)["splits"]["train"]

    assert (0, 4) == (with_bytes["unknown_tokens"], with_bytes["byte_tokens"])
    assert (2, 0) == (without_bytes["unknown_tokens"], without_bytes["byte_tokens"])


def test_the_first_the_longest_and_the_shortest_row_are_shown(report_of: ReportOf) -> None:
    """
    Then the others in order; each row once, even if it is both first and longest.
    """
    rows = [row(i, text) for i, text in enumerate(["ߞߊߞ", "ߞߊߞߊ", "ߞ", "ߞߊߞߊߞ"])]

    assert ["row-0", "row-3", "row-2"] == [each["id"] for each in report_of(rows, shown=3)["preview"]]
    assert ["row-3", "row-0", "row-1"] == [each["id"] for each in report_of(rows[::-1][:1] + rows[:2], 9)["preview"]]


def test_the_same_rows_give_the_same_line_of_json(folder: Path) -> None:
    """
    Programs compare it, so it contains no time, and a token cache does not change it.
    """
    arguments = ["--model", "nano", "--train-data", "train.jsonl", "--valid-data", "valid.jsonl", "--json"]
    first, second = (python("thunder_train.worker.inspect.tokens", arguments, folder) for _ in range(2))

    assert (0, "", first.stdout) == (first.returncode, first.stderr, second.stdout)
    result = json.loads(first.stdout)
    assert ("thunder.tokens/1", ["train", "valid"], 3) == (
        result["schema"],
        list(result["splits"]),
        len(result["preview"]),
    )
    assert 1 == first.stdout.count("\n")


def test_a_mistake_is_one_line(folder: Path) -> None:
    """
    A user's mistake gives no traceback, and all wrong flags are listed at once.
    """
    arguments = ["--model", "nano", "--train-data", "train.jsonl", "--valid-data", "valid.jsonl"]
    for changed, expected in (
        (["--rows", "-1", "--ranks", "0"], "--rows: must be 0 or more, not -1\n--ranks: must be 1 or more, not 0\n"),
        (["--train-data", "lost.jsonl"], "lost.jsonl: is missing; run `./doit data`\n"),
        (
            ["--model", "lost"],
            "--model lost: is neither a folder nor in the hub cache; run `./doit model` on this machine\n",
        ),
        (
            ["--row", "2"],
            "thunder_train.worker: unrecognized arguments: --row 2; see `python -m thunder_train.worker --help`\n",
        ),
    ):
        done = inline("thunder_train.worker.inspect.tokens", [*arguments, *changed], folder)
        assert (2, "", expected) == (done.returncode, done.stdout, done.stderr)


def test_an_error_of_the_model_is_listed_once_and_not_for_each_row(folder: Path, tmp_path: Path) -> None:
    """
    A missing chat template is one mistake, not thousands.
    """
    from thunder_train.worker.inspect import tokens

    shutil.copytree(folder / "nano", tmp_path / "bare")
    config = json.loads((tmp_path / "bare" / "tokenizer_config.json").read_text())
    del config["chat_template"]
    (tmp_path / "bare" / "tokenizer_config.json").write_text(json.dumps(config))
    data = {"train_data": folder / "train.jsonl", "valid_data": folder / "valid.jsonl"}
    settings = parse(flags(Path("adapter"), model=tmp_path / "bare", **data))
    with pytest.raises(ThunderError) as caught:
        tokens.report(settings, tokens.load(settings), 1, 0)

    expected = (
        "--model: the tokenizer has no chat template; set chat_template in [models.NAME] to a file of templates/chat, "
        "or use an instruction-tuned model"
    )
    assert expected == str(caught.value)
