"""`thunder init`: what a new project gets, and what is refused before anything is written."""

import json
import os
from pathlib import Path

import pytest

from tests.helpers.project_copy import PROJECT
from thunder_train.cli.init import Init
from thunder_train.config import load
from thunder_train.config.project import Project

BASE = PROJECT / "models/nko-nano-base"
CHAT = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
PAIR = {"feat_id": "1", "asr_text": "teh", "reference_text": "the"}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which a newcomer types."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("THUNDER_PROGRAM", "thunder")
    return tmp_path


def rows(path: str, *lines: object, count: int = 1) -> str:
    """Write rows as JSON lines; their path."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text("".join(json.dumps(line) + "\n" for line in lines for _ in range(count)))
    return path


def begin(*words: str) -> Project:
    """The project that `thunder init own WORDS` writes."""
    assert 0 == Init().parse_execute(["own", *words])
    return load.load(Path("own"))


def refusal(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """What it says of words that it refuses; nothing is written."""
    before = sorted(Path().rglob("*"))
    assert 3 == Init().parse_execute([*words])
    assert before == sorted(Path().rglob("*"))
    return capsys.readouterr().err


def test_without_words_it_is_the_demonstration(capsys: pytest.CaptureFixture[str]) -> None:
    """
    The package's rows and base; a file of the package is named by its path in a project.
    """
    project = begin()

    assert ("first",) == project.default
    assert "models/nko-nano-base" == project.recipes["first"].model.path
    assert ("single", 1) == (project.recipes["first"].cluster.name, len(project.recipes["first"].cluster.hosts))
    assert "from thunder_train.dodo import *" in Path("own/dodo.py").read_text()
    assert capsys.readouterr().out.endswith("next: cd own && thunder\n")
    assert [] == [path for path in Path("own").rglob("*") if str(Path().resolve()) in _text(path)]


def test_a_folder_of_mlx_lm_keeps_its_splits_and_a_model_is_linked() -> None:
    """
    A link costs no gigabytes, and no path of this machine is in a committed file.
    """
    rows("mine/train.jsonl", CHAT, count=80)
    rows("mine/valid.jsonl", CHAT)

    project = begin("--data", "mine", "--model", str(BASE))
    (source,) = project.datasets["mine"].sources

    assert ("folder", "data/sources/mine") == (source.kind, source.path)
    assert Path("own/models/nko-nano-base").is_symlink()
    assert (60, 3) == (project.recipes["first"].train.num_iters, project.recipes["first"].train.num_layers)
    assert [] == [path for path in Path("own").glob("*.toml") if str(PROJECT) in path.read_text()]


@pytest.mark.parametrize(
    ("row", "kind", "fields"),
    [
        (CHAT, "chatml", {}),
        ({"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}, "sharegpt", {}),
        ({"instruction": "a", "input": "", "output": "b"}, "alpaca", {}),
        ({"prompt": "a", "completion": "b"}, "completions", {}),
        ({"question": "a", "answer": "b"}, "completions", {"prompt": "question", "completion": "answer"}),
        ({"text": "a"}, "text", {}),
        (PAIR, "rows", {}),
        ({"audio_filepath": "a.wav", "text": "a", "pred_text": "b"}, "nemo", {}),
    ],
)
def test_the_kind_of_rows_is_told_by_their_fields(row: object, kind: str, fields: dict[str, str]) -> None:
    """
    The words of data/kinds.py; what has a prompt template gets the package's.
    """
    project = begin("--data", rows("mine.jsonl", row, count=20), "--model", "nano")
    dataset = project.datasets["mine"]

    assert (kind, fields) == (dataset.sources[0].kind, dataset.sources[0].fields)
    assert (kind in ("rows", "nemo")) == bool(dataset.templates)


def test_predictions_and_references_may_be_two_files() -> None:
    """
    As a recogniser's output and the corpus it read.
    """
    heard = rows("heard.jsonl", {"feat_id": "1", "asr_text": "teh"})
    said = rows("said.jsonl", {"feat_id": "1", "reference_text": "the"})

    (source,) = begin("--data", heard, "--references", said, "--model", "nano").datasets["heard"].sources

    assert ("rows", "data/sources/heard-references.jsonl") == (source.kind, source.references)


def test_a_base_without_a_chat_template_gets_the_plain_one(tmp_path: Path) -> None:
    """
    Otherwise the first training ends with an error about its tokenizer.
    """
    base = tmp_path / "base"
    base.mkdir()
    for file in BASE.iterdir():
        (base / file.name).write_bytes(file.read_bytes())
    config = json.loads((base / "tokenizer_config.json").read_text())
    del config["chat_template"]
    (base / "tokenizer_config.json").write_text(json.dumps(config))

    project = begin("--data", rows("mine.jsonl", CHAT), "--model", "base")

    assert "templates/chat/plain.jinja" == project.models["base"].chat_template


def test_a_repository_of_the_hub_is_named_and_not_asked_for() -> None:
    """
    The first build fetches it.
    """
    model = begin("--data", rows("mine.jsonl", CHAT), "--model", "owner/some-name-4bit").models["some-name-4bit"]

    assert ("hub", "owner/some-name-4bit") == (model.kind, model.repo)


def test_it_can_begin_in_the_folder_of_the_data(capsys: pytest.CaptureFixture[str]) -> None:
    """
    The user's README, .gitignore and .gitattributes stay theirs.
    """
    rows("train.jsonl", CHAT)
    for name in ("README.md", ".gitattributes"):
        Path(name).write_text("mine\n")

    assert 0 == Init().parse_execute([".", "--data", "train.jsonl", "--model", "nano"])
    assert ["mine\n"] * 2 == [Path(name).read_text() for name in ("README.md", ".gitattributes")]
    assert capsys.readouterr().out.endswith("next: thunder\n")


def test_a_second_time_it_overwrites_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """
    Neither a project nor a part of one.
    """
    begin()

    message = refusal(capsys, "own")
    assert message.startswith("ERROR: own: data/sources/nko_nano_predictions.jsonl, ")
    assert "thunder.toml: there already; choose another folder, or edit the project that is there" in message


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "the following arguments are required: folder"),
        (["own", "--data"], "argument --data: expected one argument"),
        (["own", "--dat", "x"], "unrecognized arguments: --dat x"),
        (["own", "--data", "none"], "none: is missing; give the folder or the file of your rows"),
        (["own", "--data", "empty.jsonl", "--model", "nano"], "empty.jsonl"),
        (["own", "--data", "odd.jsonl", "--model", "nano"], "odd.jsonl: a row has x, y, which is no kind of rows"),
        (["own", "--data", "odd", "--model", "nano"], "odd: has no file with rows"),
        (["own", "--data", "mine.jsonl"], "init: your data needs a model"),
        (["own", "--data", "mine.jsonl", "--model", "no model"], "--model no model: is neither a folder nor a rep"),
        (["own", "--model", "odd"], "odd: holds no *.safetensors weights"),
        (["own", "--references", "mine.jsonl"], "--references: goes with --data"),
        (["mine.jsonl"], "mine.jsonl: is no folder"),
        (["own", "--from-mlx-lm", "none.yaml"], "none.yaml: cannot be read: No such file or directory"),
    ],
)
def test_mistakes_are_named_and_nothing_is_written(
    capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    """
    One sentence, with what to do.
    """
    rows("mine.jsonl", CHAT)
    rows("odd.jsonl", {"x": 1, "y": 2})
    rows("empty.jsonl")
    os.mkdir("odd")

    assert message in refusal(capsys, *words)


def test_much_data_is_not_copied(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A project is committed; whoever has more puts a link there.
    """
    monkeypatch.setattr("thunder_train.cli.init.LARGE_BYTES", 10)

    assert "would be copied into the project" in refusal(
        capsys, "own", "--data", rows("mine.jsonl", CHAT), "--model", "nano"
    )


def test_a_config_of_mlx_lm_becomes_a_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    """
    With the data that it names, from its own folder; what has no place is named.
    """
    rows("lab/mine/train.jsonl", CHAT)
    Path("lab/lora.yaml").write_text("data: mine\nmodel: nano\niters: 40\nval_batches: 3\nlearning_rate: 1e-4\n")

    train = begin("--from-mlx-lm", "lab/lora.yaml").recipes["first"].train

    assert (40, 4, 1e-4, 6, 0.0) == (
        train.num_iters,
        train.global_batch_size,
        train.learning_rate,
        train.num_layers,
        train.weight_decay,
    )
    out = capsys.readouterr().out
    assert "  val_batches: every validation row counts\n" in out
    assert "everything" == train.train_on  # mlx-lm trains on prompts too, unless mask_prompt is set


def _text(path: Path) -> str:
    return path.read_text() if path.is_file() and path.suffix in (".toml", ".py", ".md", ".json") else ""
