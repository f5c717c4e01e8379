"""A model's folder comes from anyone: each thing that is wrong in it is one error with file and key; no code runs."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import families
from thunder_train import ThunderError
from thunder_train.core import model_files

CONFIG = {
    "model_type": "llama",
    "num_hidden_layers": 2,
    "hidden_size": 64,
    "quantization": {"group_size": 64, "bits": 4},
}
TENSOR = json.dumps({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
WEIGHTS = len(TENSOR).to_bytes(8, "little") + TENSOR + bytes(8)
FILES: dict[str, Any] = {
    "config.json": CONFIG,
    "generation_config.json": {"eos_token_id": [1, 106]},
    "tokenizer_config.json": {"chat_template": "x", "model_max_length": 10**30, "eos_token": {"content": "<eos>"}},
    "model.safetensors.index.json": {"metadata": {}, "weight_map": {"w": "model.safetensors"}},
}
AGAIN = "download the model again, or correct the file"
DEEP = "[" * 900 + "]" * 900


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model that is in order."""
    place = tmp_path / "m"
    place.mkdir()
    for name, value in FILES.items():
        (place / name).write_text(json.dumps(value))
    (place / "model.safetensors").write_bytes(WEIGHTS)
    (place / "chat_template.jinja").write_text("{{ messages }}")
    return place


def told(folder: Path) -> list[str]:
    """The problems of a folder."""
    return [str(problem) for problem in model_files.problems(folder, "m")]


def test_a_model_in_order_has_no_problem(folder: Path) -> None:
    """
    Whatever else its publisher keeps there is not our concern.
    """
    (folder / "README.md").mkdir()
    (folder / "images").mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG | {"odd": [float("inf")], "text_config": None}))

    assert [] == told(folder)
    assert 2 == model_files.layers(folder / "config.json")


def test_the_families_that_are_trained_pass() -> None:
    """
    A schema that refuses a good model would be worse than none.
    """
    tables = [value for value in vars(families).values() if isinstance(value, dict) and "hidden_size" in value]

    assert tables
    for table in tables:
        model_files.msgspec.convert(table, model_files.Config)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "is not JSON: Expecting value: line 1 column 1 (char 0)"),
        (b"[]", "expected `object`, got `array`"),
        (b'"x"', "expected `object`, got `str`"),
        (b"null", "expected `object`, got `null`"),
        (b"NaN", "expected `object`, got `float`"),
        (b"7", "expected `object`, got `int`"),
        (b"{", "is not JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
        (b"\xff\xfe", "is not JSON: 'utf-8' codec can't decode byte 0xff in position 0: invalid start byte"),
        (DEEP.encode(), "is nested deeper than 32"),
        (b"[" * 100_000, "is nested too deep"),
        (b'{"x": ' + b"9" * 5000 + b"}", "is not JSON: Exceeds the limit (4300 digits) for integer string conversion"),
        (b" " * (model_files.SMALL_LIMIT + 1), "is longer than 16 MiB"),
    ],
    ids=lambda value: value[:12] if isinstance(value, bytes) else "",
)
def test_what_is_no_table_is_one_error(folder: Path, name: str, content: bytes, expected: str) -> None:
    """
    A config.json that is a list stopped every command with a traceback.
    """
    (folder / name).write_bytes(content)

    (line,) = told(folder)
    assert line.startswith(f"m: {name}: {expected}")


@pytest.mark.parametrize(
    ("name", "key", "value", "expected"),
    [
        ("config.json", "num_hidden_layers", "two", "expected `int | null`, got `str`"),
        ("config.json", "num_hidden_layers", True, "expected `int | null`, got `bool`"),
        ("config.json", "num_hidden_layers", float("nan"), "expected `int | null`, got `float`"),
        ("config.json", "num_hidden_layers", -1, "expected `int` >= 1"),
        ("config.json", "num_hidden_layers", 10**40, "expected `int` <= 2000"),
        ("config.json", "hidden_size", 0, "expected `int` >= 1"),
        ("config.json", "vocab_size", 10**12, "expected `int` <= 16777216"),
        ("config.json", "model_type", "../../evil", "expected `str` matching regex "),
        ("config.json", "model_type", "llama.x", "expected `str` matching regex "),
        ("config.json", "text_config", [], "expected `object | null`, got `array`"),
        ("config.json", "text_config.hidden_size", {}, "expected `int | null`, got `object`"),
        ("config.json", "quantization", 4, "expected `object | null`, got `int`"),
        ("config.json", "quantization.bits", "four", "expected `int`, got `str`"),
        ("config.json", "quantization.group_size", 0, "expected `int` >= 1"),
        ("config.json", "eos_token_id", "x", "expected `int | array | null`, got `str`"),
        ("generation_config.json", "eos_token_id", {}, "expected `int | array | null`, got `object`"),
        ("tokenizer_config.json", "chat_template", 7, "expected `str | "),
        ("tokenizer_config.json", "gguf_file", "/x.gguf", "expected `null`, got `str`"),
        ("config.json", "model_type", "llama\n", "expected `str` matching regex "),
        ("tokenizer_config.json", "tool_parser_type", "os.path", "expected `str` matching regex"),
        ("model.safetensors.index.json", "weight_map", ["x"], "expected `object`, got `array`"),
        ("model.safetensors.index.json", "weight_map.w", "../../etc/x.safetensors", "expected `str` matching regex"),
    ],
)
def test_a_wrong_value_is_told_with_its_key(folder: Path, name: str, key: str, value: Any, expected: str) -> None:
    """
    The key says what to look at; msgspec writes [...] for a key of any name.
    """
    table = json.loads((folder / name).read_text())
    *outer, last = key.split(".")
    inner = table
    for part in outer:
        inner = inner.setdefault(part, {})
    inner[last] = value
    (folder / name).write_text(json.dumps(table))

    (line,) = told(folder)
    assert line.startswith(f"m: {name}: {key.replace('weight_map.w', 'weight_map[...]')}: {expected}")
    assert line.endswith(f"; {AGAIN}")


@pytest.mark.parametrize("key", ["auto_map", "model_file"])
@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_code_of_a_folder_is_refused_and_does_not_run(folder: Path, name: str, key: str) -> None:
    """
    mlx-lm runs `model_file`, transformers `auto_map`, if they are asked to trust it; nobody here asks.
    """
    (folder / "evil.py").write_text("open('ran', 'w')")
    (folder / name).write_text(json.dumps(FILES[name] | {key: "evil.py"}))

    assert [
        f"m: {name}: needs code from its own repository to load ({key}), which Thunder Train never runs; "
        "use a model whose architecture mlx-lm has itself"
    ] == told(folder)


SPOILED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a folder": (lambda path: path.mkdir(), "is not a file; put the model's file there"),
    "a pipe": (os.mkfifo, "is not a file; put the model's file there"),
    "a link to nothing": (lambda path: path.symlink_to("nowhere"), "is a link to nothing; put the model's file there"),
    "a link to itself": (lambda path: path.symlink_to(path.name), "is a link to nothing; put the model's file there"),
    "a device": (lambda path: path.symlink_to("/dev/zero"), "is not a file; put the model's file there"),
}


@pytest.mark.parametrize("name", [*FILES, "model.safetensors", "model-2.safetensors", "tokenizer.json", "a.jinja"])
@pytest.mark.parametrize(("make", "expected"), SPOILED.values(), ids=SPOILED)
def test_what_is_no_file_is_not_opened(folder: Path, name: str, make: Callable[[Path], Any], expected: str) -> None:
    """
    A pipe would keep mlx-lm waiting for ever, /dev/zero fill the memory.
    """
    (folder / name).unlink(missing_ok=True)
    make(folder / name)

    assert [f"m: {name}: {expected}"] == told(folder)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00" * 7,
        WEIGHTS[:-1],
        WEIGHTS + b"x",
        WEIGHTS[:20],
        b"\xff" * 8 + WEIGHTS,
        (2**40).to_bytes(8, "little") + b"{}",
        b"\x02\0\0\0\0\0\0\0[]",
        b"\x80\x02c__builtin__\neval\n",
        WEIGHTS.replace(b"[0, 8]", b"[8, 0]"),
        WEIGHTS.replace(b"[2]", b"[9]"),
    ],
)
def test_damaged_weights_are_refused_by_their_header(folder: Path, content: bytes) -> None:
    """
    A download that broke off must not be found out by MLX, in the middle of a night.
    """
    (folder / "model.safetensors").write_bytes(content)

    (line,) = told(folder)
    assert line.startswith("m: model.safetensors: is cut short or damaged: ")
    assert line.endswith("; download or copy it again")


def test_a_name_that_steers_a_terminal_is_refused(folder: Path) -> None:
    """
    It would stand in the lock, which is committed.
    """
    (folder / "\x1b[2J.json").write_text("{}")
    (folder / os.fsdecode(b"\xff.json")).write_text("{}")

    assert ["m: holds '\\x1b[2J.json'; rename this file", "m: holds '\\udcff.json'; rename this file"] == told(folder)


def test_a_vocabulary_has_a_bound(folder: Path) -> None:
    """
    A file with holes costs its maker nothing.
    """
    with open(folder / "tokenizer.json", "wb") as file:
        file.truncate(model_files.TOKENIZER_LIMIT + 1)

    assert ["m: tokenizer.json: is longer than 256 MiB; give the files of a model"] == told(folder)


def test_a_config_alone_is_checked_as_strictly(folder: Path) -> None:
    """
    `doit fit` reads a config.json without the rest of the model.
    """
    (folder / "config.json").write_text("[]")

    with pytest.raises(ThunderError, match=r"config\.json: expected `object`, got `array`"):
        model_files.config(folder / "config.json")
    with pytest.raises(ThunderError, match=r"no\.json: is missing; run x"):
        model_files.config(folder / "no.json", "run x")
