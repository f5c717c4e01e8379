"""What a training will see of its rows, told before it runs."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.worker.conftest import flags, python, row, write_rows
from thunder_train import ThunderError
from thunder_train.worker.args import parse

pytestmark = pytest.mark.mlx

CHANGED = {"train_on": "all", "too_long": "split", "max_seq_len": 60, "global_batch_size": 3, "num_iters": 1, "seed": 7}
ANSWERS = ["ߊߋߌ", "ߓߊ ߓߋ ߓߌ " * 2, "ߞߊ", "ߞߋ ߟߌ ߡߊ", "ߛߊ " * 5, "ߕߊ ߕߋ", "ߘ" * 70, "ߝߊ"]


@pytest.fixture(scope="module")
def base(folder, tmp_path_factory):
    """The nano model's files without its weights, loaded."""
    from thunder_train.worker.inspect import tokens as preview

    bare = tmp_path_factory.mktemp("preview") / "bare"
    shutil.copytree(folder / "nano", bare, ignore=shutil.ignore_patterns("*.safetensors"))
    return preview.load(parse(flags(Path("adapter"), model=bare)))


@pytest.fixture
def told(tmp_path, base):
    """A function: train rows and changed flags -> the report, with one valid row."""
    from thunder_train.worker.inspect import tokens as preview

    def told(rows, shown=0, **changed):
        data = {"train_data": tmp_path / "train.jsonl", "valid_data": tmp_path / "valid.jsonl"}
        write_rows(data["train_data"], rows)
        write_rows(data["valid_data"], [row(1, "ߞߊ")])
        settings = parse(flags(Path("adapter"), **data, **changed))
        return preview.report(replace(settings, token_cache=tmp_path / "tokens"), base, ranks=1, rows=shown)

    return told


def talk(number, *contents):
    """A row of user and assistant messages in turn."""
    messages = [{"role": ("user", "assistant")[i % 2], "content": each} for i, each in enumerate(contents)]
    return {"id": f"row-{number}", "messages": messages}


def test_it_tells_what_the_training_then_does(folder, tmp_path):
    """
    The same rows, tokens and targets, dropped and split alike: a preview that says something else is worse than none.
    """
    write_rows(tmp_path / "train.jsonl", [talk(i, "ߊ", "ߋ", text, text) for i, text in enumerate(ANSWERS)])
    write_rows(tmp_path / "valid.jsonl", [row(1, "ߞߊ")])
    words = flags(tmp_path / "out" / "adapter", model=folder / "nano", **CHANGED)
    trained = python("thunder_train.worker", words, tmp_path)
    told = python("thunder_train.worker.inspect.tokens", [*words, "--json"], tmp_path)

    assert (0, 0) == (trained.returncode, told.returncode), trained.stderr + told.stderr
    done = json.loads((tmp_path / "out" / "adapter" / "done.json").read_text())
    found = json.loads(told.stdout)
    splits = {name: split["training"] for name, split in found["splits"].items()}
    for fact in ("rows", "dropped", "split"):
        assert done[fact] == {name: split[fact] for name, split in splits.items()}
    assert done["tokens"] == {name: split["tokens"] for name, split in splits.items()} | {
        f"{name}_targets": split["targets"] for name, split in splits.items()
    }
    assert (1, 2) == (done["dropped"]["train"], done["split"]["train"])
    assert (done["packed"], done["rows_per_step"]) == (not found["not_packed"], found["rows_per_step"])


@pytest.mark.parametrize("ranks", [1, 3])
@pytest.mark.parametrize("packing", ["auto", "never"])
def test_an_epoch_is_laid_out_as_the_training_lays_it_out(tmp_path, base, packing, ranks):
    """
    Padding is counted in the batches that every rank will compute, over each step of the first epoch.
    """
    from thunder_train.worker.batching import tokens
    from thunder_train.worker.inspect import tokens as preview
    from thunder_train.worker.ranks import Ranks
    from thunder_train.worker.train import setup

    rows = write_rows(tmp_path / "rows.jsonl", [row(i, text) for i, text in enumerate(ANSWERS)])
    changed = CHANGED | {"packing": packing, "max_seq_len": 200}
    settings = parse(flags(Path("adapter"), train_data=rows, valid_data=rows, **changed))
    split = tokens.read(rows, base.tokenizer, tokens.Policy(200, "split", "all"))
    ready = SimpleNamespace(model=base.model, splits={"train": split}, not_packed=packing == "never")
    feeds = [setup._feed(settings, ready, "train", Ranks(rank, ranks)) for rank in range(ranks)]
    expected = sum(batch.padded_tokens for feed in feeds for step in range(3) for batch in feed.step(step))

    found = preview.report(settings, base, ranks, rows=0)["splits"]["train"]["training"]

    assert (3, 8) == (found["steps_per_epoch"], found["rows_laid_out"])
    assert split.tokens - 8 == found["real_tokens"]
    assert expected == found["computed_tokens"]
    assert round((split.tokens - 8) / expected, 4) == found["packing_efficiency"]


def test_the_tokenizer_is_that_of_the_training_and_needs_no_weights(folder, tmp_path):
    """
    Whether gigabytes are worth a download is asked before they are there. Tokens that end a turn lie in three files.
    """
    from thunder_train.worker import model
    from thunder_train.worker.inspect import tokens as preview

    shutil.copytree(folder / "nano", tmp_path / "nano")
    (tmp_path / "nano" / "generation_config.json").write_text('{"eos_token_id": [5, 1]}')
    _, theirs = model.load(str(tmp_path / "nano"), "")
    (tmp_path / "nano" / "model.safetensors").unlink()
    ours = preview.load(parse(flags(Path("adapter"), model=tmp_path / "nano"))).tokenizer

    assert theirs.backend_tokenizer.to_str() == ours.backend_tokenizer.to_str()
    assert (theirs.chat_template, {1, 5}) == (ours.chat_template, ours.eos_token_ids)
    assert {1, 5} == theirs.eos_token_ids


def test_a_split_in_numbers(told):
    """
    Rows of 36 to 46 tokens, of which the answers and their ends are targets; nothing in them is unknown to nano.
    """
    split = told([row(i, "ߊ" * (i + 1)) for i in range(6)])["splits"]["train"]

    assert {"min": 36, "median": 40, "p95": 46, "max": 46, "total": 246} == split["tokens"]
    assert [(low, low + 1, 1) for low in range(36, 47, 2)] == split["histogram"]
    assert (6, [], 0, "") == tuple(split[key] for key in ("rows", "unusable", "over_max_seq_len", "stop"))
    answers, prompts = 1 + 2 + 3 + 4 + 5 + 6, 6 * len("Correct.") + 0 + 1 + 2 + 3 + 4 + 5
    assert (answers + 6, round(27 / 246, 4)) == (split["targets"], split["supervised"])
    assert round(246 / (answers + prompts), 4) == split["tokens_per_character"]
    assert round(27 / 21, 4) == split["targets_per_character"]
    assert (0, 0) == (split["unknown_tokens"], split["byte_tokens"])


def test_quantiles_are_lengths_of_rows():
    """
    No row is 43.5 tokens long, so nothing lies between two rows.
    """
    from thunder_train.worker.inspect.tokens import quantiles

    assert {"min": 1, "median": 10, "p95": 19, "max": 20} == quantiles(range(1, 21))
    assert {"min": 7, "median": 7, "p95": 7, "max": 7} == quantiles([7])
    assert {"min": 0, "median": 0, "p95": 0, "max": 0} == quantiles([])


def test_a_histogram_counts_every_row_in_at_most_ten_bins():
    """
    One long row must not hide among the rest: its bin has a bar, however low.
    """
    from thunder_train.worker.inspect.tokens import bars, histogram

    found = histogram([3] * 500 + [4, 25])

    assert [(3, 5, 501), *((low, low + 2, 0) for low in range(6, 24, 3)), (24, 26, 1)] == found
    assert f"   3 to  5  {'█' * 40}  501" == bars(found)[0]
    assert f"  24 to 26  █{' ' * 39}  1" == bars(found)[-1]


def test_of_many_rows_a_part_is_laid_out_and_told(told, monkeypatch):
    """
    Whole steps of the first epoch: a share of padding needs no million rows.
    """
    from thunder_train.worker.inspect import tokens as preview
    from thunder_train.worker.inspect import tokens as token_facts

    monkeypatch.setattr(token_facts, "LAID_OUT", 5)
    found = told([row(i, "ߊ" * (i + 1)) for i in range(6)], batch_size=2)

    assert 4 == found["splits"]["train"]["training"]["rows_laid_out"]
    (line,) = (line for line in preview.tell(found) if line.startswith("packing efficiency"))
    assert "%; 4 rows " in line


@pytest.mark.parametrize(
    ("too_long", "expected"),
    [("drop", (1, 1, 0, 40)), ("split", (3, 0, 1, 158))],
)
def test_what_becomes_of_long_rows_is_counted(told, too_long, expected):
    """
    A row of 40 tokens, and one of 64 whose prompt has 48: left out, or its 16 targets in rows of 60 and 58 tokens.
    """
    found = told([row(1, "ߞߊߞ"), row(2, "ߞ" * 15)], too_long=too_long, max_seq_len=60)["splits"]["train"]

    assert 1 == found["over_max_seq_len"]
    training = found["training"]
    assert expected == tuple(training[key] for key in ("rows", "dropped", "split", "tokens"))


def test_a_row_as_long_as_allowed_is_not_long(told):
    """
    max_seq_len is the longest row, and nothing is cut from it.
    """
    split = told([row(1, "ߞߊߞ")], max_seq_len=40)["splits"]["train"]

    assert (40, 0, "") == (split["tokens"]["max"], split["over_max_seq_len"], split["stop"])
    assert 1 == split["training"]["rows"]


def test_a_training_that_would_refuse_long_rows_is_told_to_stop(told):
    """
    Nothing is said of a training that will not be; what the rows are is told all the same.
    """
    from thunder_train.worker.inspect import tokens as preview

    found = told([row(1, "ߞߊߞ"), row(2, "ߞ" * 15)], max_seq_len=60)
    split = found["splits"]["train"]

    assert ("1 rows are longer than max_seq_len, and too_long is refuse", None) == (split["stop"], split["training"])
    lines = list(preview.tell(found))
    assert f"\nthe training would stop: {split['path']}: {split['stop']}" in lines
    assert "max_seq_len 60, too_long refuse, train_on last; 1 rows a step; rows are packed" == lines[0]
    assert ["rows", "over", "60", "tokens", "1", "0"] == lines[5].split()


def test_rows_without_a_target_are_counted_by_reason_and_named(told):
    """
    The training lists every one of them and stops; here they are counted, and a few are named.
    """
    from thunder_train.worker.inspect import tokens as preview

    empty, open_ended = row(1, "ߞߊ"), row(2, "ߞߊ")
    empty["messages"][-1]["content"] = ""
    open_ended["messages"].pop()
    found = told([empty, row(3, "ߞߋ"), open_ended, {"text": "no chat"}])
    split = found["splits"]["train"]
    path = split["path"]

    assert [
        {"what": "has no target: the last message is no answer", "rows": 2, "first": [f"{path}:1", f"{path}:3"]},
        {"what": "has no `messages` with role and content", "rows": 1, "first": [f"{path}:4"]},
    ] == split["unusable"]
    assert (4, 38, "3 rows cannot be trained on") == (split["rows"], split["tokens"]["total"], split["stop"])
    expected = f"  has no target: the last message is no answer: 2 rows, {path}:1, {path}:3"
    assert expected in list(preview.tell(found))


@pytest.mark.parametrize(
    ("rows", "changed", "stop"),
    [
        ([], {}, "holds no row to use"),
        ([row(1, "ߞߊ")], {"too_long": "drop", "max_seq_len": 20}, "holds no row to use"),
        ([row(1, "ߞߊ")], {"batch_size": 2}, "has 1 rows, fewer than the 2 of one step"),
    ],
)
def test_a_training_without_enough_rows_is_told_to_stop(told, rows, changed, stop):
    """
    In the words of the training, before a model is loaded on eight machines.
    """
    from thunder_train.worker.inspect import tokens as preview

    found = told(rows, shown=3, **changed)

    assert (stop, None) == tuple(found["splits"]["train"][key] for key in ("stop", "training"))
    assert len(rows) == len(found["preview"])
    assert f"\nthe training would stop: {found['splits']['train']['path']}: {stop}" in list(preview.tell(found))


def test_bytes_and_unknown_tokens_are_counted(tmp_path, folder, told, base):
    """
    A model that spells N'Ko in bytes pays for each letter twice; one that knows no bytes does not see it at all.
    """
    from thunder_train.worker.inspect import tokens as preview

    spelt = told([row(1, "ߞɛ")])["splits"]["train"]  # ɛ in the hypothesis and in the answer, two bytes each
    shutil.copytree(folder / "nano", tmp_path / "blind", ignore=shutil.ignore_patterns("*.safetensors"))
    tokenizer = json.loads((tmp_path / "blind" / "tokenizer.json").read_text())
    tokenizer["model"]["byte_fallback"] = False
    (tmp_path / "blind" / "tokenizer.json").write_text(json.dumps(tokenizer))
    settings = parse(
        flags(Path("adapter"), model=tmp_path / "blind", train_data=spelt["path"], valid_data=spelt["path"])
    )
    blind = preview.report(settings, preview.load(settings), 1, 0)["splits"]["train"]

    assert (0, 4) == (spelt["unknown_tokens"], spelt["byte_tokens"])
    assert (2, 0) == (blind["unknown_tokens"], blind["byte_tokens"])


def test_the_first_the_longest_and_the_shortest_row_are_shown(told):
    """
    Then the others in order; each row once, though one is two of these.
    """
    rows = [row(i, text) for i, text in enumerate(["ߞߊߞ", "ߞߊߞߊ", "ߞ", "ߞߊߞߊߞ"])]

    assert ["row-0", "row-3", "row-2"] == [each["id"] for each in told(rows, shown=3)["preview"]]
    assert ["row-3", "row-0", "row-1"] == [each["id"] for each in told(rows[::-1][:1] + rows[:2], 9)["preview"]]


def test_it_prints_the_same_line_of_json_again_and_reads_no_clock(folder):
    """
    Machines compare it, and a cache of tokens or none makes no difference.
    """
    words = ["--model", "nano", "--train-data", "train.jsonl", "--valid-data", "valid.jsonl", "--json"]
    first, second = (python("thunder_train.worker.inspect.tokens", words, folder) for _ in range(2))

    assert (0, "", first.stdout) == (first.returncode, first.stderr, second.stdout)
    found = json.loads(first.stdout)
    assert ("thunder.tokens/1", ["train", "valid"], 3) == (
        found["schema"],
        list(found["splits"]),
        len(found["preview"]),
    )
    assert 1 == first.stdout.count("\n")


def test_a_mistake_is_one_line(folder):
    """
    A user's mistake, so no traceback; all wrong flags at once.
    """
    words = ["--model", "nano", "--train-data", "train.jsonl", "--valid-data", "valid.jsonl"]
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
        done = python("thunder_train.worker.inspect.tokens", [*words, *changed], folder)
        assert (2, "", expected) == (done.returncode, done.stdout, done.stderr)


def test_a_model_at_fault_is_told_once_and_not_for_each_row(folder, tmp_path):
    """
    Thousands of rows without a chat template are one mistake.
    """
    from thunder_train.worker.inspect import tokens as preview

    shutil.copytree(folder / "nano", tmp_path / "bare")
    config = json.loads((tmp_path / "bare" / "tokenizer_config.json").read_text())
    del config["chat_template"]
    (tmp_path / "bare" / "tokenizer_config.json").write_text(json.dumps(config))
    data = {"train_data": folder / "train.jsonl", "valid_data": folder / "valid.jsonl"}
    settings = parse(flags(Path("adapter"), model=tmp_path / "bare", **data))
    with pytest.raises(ThunderError) as caught:
        preview.report(settings, preview.load(settings), 1, 0)

    expected = "--model: the tokenizer has no chat template; use an instruction-tuned model"
    assert expected == str(caught.value)
