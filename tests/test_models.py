"""Which base models are locked, and which are refused, with the reason and what to do."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from thunder_train import ThunderError, models
from thunder_train.config.project import Model
from thunder_train.core import files

NANO = Model(name="tiny", kind="nano", layers=2, width=16, heads=2, kv_heads=1, hidden=32)
NO_TENSOR = b"\x02\0\0\0\0\0\0\0{}"
"""A whole .safetensors file: the length of its header, and the header."""
CONVERT = "convert it with `mlx_lm.convert --hf-path MODEL --mlx-path FOLDER` and name that folder"


def model_folder(folder: Path, config: object, *names: str) -> Path:
    """A folder with a config.json and files of the names; weights hold no tensor."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    for name in names:
        (folder / name).write_bytes(NO_TENSOR if name.endswith(".safetensors") else b"")
    return folder


@pytest.mark.parametrize(
    ("config", "names", "expected"),
    [
        ({"model_type": "llama"}, ["model.safetensors", "tokenizer.json"], []),
        ({"model_type": "llama"}, ["model.safetensors", "pytorch_model.bin"], []),
        (
            {"model_type": "llama"},
            ["pytorch_model.bin", "extra.pt"],
            [
                "base: holds PyTorch weights (extra.pt, pytorch_model.bin): a pickle can run any code, "
                f"and MLX does not read it; {CONVERT}"
            ],
        ),
        (
            {"model_type": "whisper", "architectures": ["WhisperForConditionalGeneration"]},
            ["model.safetensors"],
            [
                "base: is a Whisper speech model; Thunder Train trains language models that mlx-lm loads; "
                "keep it as the recogniser, and train a corrector of its text, or port it to MLX first"
            ],
        ),
        (
            {"model_type": "x", "auto_map": {"AutoModel": "modeling_x.X"}},
            ["model.safetensors", "modeling_x.py"],
            [
                "base: config.json: needs code from its own repository to load (auto_map), which Thunder Train never "
                "runs; use a model whose architecture mlx-lm has itself"
            ],
        ),
        ({"model_type": "llama"}, [], [f"base: holds no *.safetensors weights; {CONVERT}"]),
        (
            {"model_type": "llama"},
            ["consolidated.safetensors"],
            [
                "base: holds consolidated.safetensors, and mlx-lm reads only files named model*.safetensors; "
                "give the folder of the whole model; rename its only file model.safetensors"
            ],
        ),
    ],
)
def test_a_model_that_cannot_be_trained_is_refused(
    tmp_path: Path, config: object, names: list[str], expected: list[str]
) -> None:
    """
    The first users' recogniser is a PyTorch Whisper model: it must be refused before anything is loaded.
    """
    folder = model_folder(tmp_path, config, *names)

    assert expected == [str(problem) for problem in models.problems(folder, "base")]


def test_a_tokenizer_that_needs_code_is_refused_too(tmp_path: Path) -> None:
    """
    `auto_map` in tokenizer_config.json runs code just as well.
    """
    folder = model_folder(tmp_path, {"model_type": "llama"}, "model.safetensors")
    (folder / "tokenizer_config.json").write_text('{"auto_map": {"AutoTokenizer": ["tokenization_x.X", null]}}')

    assert 1 == len(models.problems(folder, "base"))


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda folder: None, "base: is not a folder; give the folder of an mlx-lm model in thunder.toml"),
        (
            lambda folder: (folder.mkdir(), (folder / "model.safetensors").write_bytes(NO_TENSOR)),
            "base: holds no config.json; give the whole folder of the model",
        ),
        (
            lambda folder: (folder.mkdir(), (folder / "config.json").write_text("{")),
            "base: config.json: is not JSON: Expecting property name enclosed in double quotes: "
            "line 1 column 2 (char 1); download the model again, or correct the file",
        ),
        (lambda folder: folder.mkdir(), f"base: holds no *.safetensors weights; {CONVERT}"),
    ],
)
def test_a_folder_that_is_no_model_is_refused(tmp_path: Path, make: object, expected: str) -> None:
    """
    Each mistake gives one clear error.
    """
    make(tmp_path / "m")  # type: ignore[operator]

    assert [expected] == [str(problem) for problem in models.problems(tmp_path / "m", "base")]


@pytest.mark.parametrize(
    ("present", "expected"),
    [
        (
            ["model-1-of-3.safetensors"],
            [
                "base: lacks 2 of the 3 files that its index names, first model-2-of-3.safetensors; "
                "download the model again"
            ],
        ),
        ([f"model-{number}-of-3.safetensors" for number in (1, 2, 3)], []),
        (["model.safetensors"], []),
    ],
)
def test_a_download_that_stopped_half_way_is_told(tmp_path: Path, present: list[str], expected: list[str]) -> None:
    """
    mlx-lm would name every tensor that is missing. It reads no index, so that of other files does not matter.
    """
    folder = model_folder(tmp_path, {"model_type": "llama"}, *present)
    index = {f"w{number}": f"model-{number}-of-3.safetensors" for number in (1, 2, 3)}
    files.write_json(folder / "model.safetensors.index.json", {"weight_map": index})

    assert expected == [str(problem) for problem in models.problems(folder, "base")]


def test_a_path_model_is_locked_by_the_hash_of_every_file_that_is_read(tmp_path: Path) -> None:
    """
    The lock holds no absolute path and no file that mlx-lm does not read.
    """
    config = {"model_type": "gemma4", "text_config": {"num_hidden_layers": 35}}
    model_folder(tmp_path / "base", config, "model.safetensors", "notes.md", "tokenizer.model", "old.bin")
    model = replace(NANO, kind="path", path="base")

    models.build(model, tmp_path, tmp_path / "out")
    lock = files.read_json(tmp_path / "out/runs/models/tiny/model.lock.json")

    assert ["config.json", "model.safetensors", "tokenizer.model"] == [file["path"] for file in lock["files"]]
    assert files.sha256(tmp_path / "base/config.json") == lock["files"][0]["sha256"]
    assert 35 == lock["layers"]
    assert str(tmp_path) not in json.dumps(lock)
    assert ["base/config.json", "base/model.safetensors", "base/tokenizer.model"] == [*models.inputs(model, tmp_path)]


@pytest.mark.mlx
def test_the_nano_model_is_the_same_to_the_byte_each_time(tmp_path: Path) -> None:
    """
    Its lock is committed, so two machines must make the same bytes.
    """
    for name in ("one", "two"):
        models.build(NANO, tmp_path, tmp_path / name)
    locks = [(tmp_path / name / "runs/models/tiny/model.lock.json").read_text() for name in ("one", "two")]

    assert locks[0] == locks[1]
    assert {Path(path).name for path in models.targets(NANO)} == {
        path.name for path in (tmp_path / "one/runs/models/tiny").rglob("*") if path.is_file()
    }


def hub_cache(home: Path, commit: str) -> None:
    """Write what a download of owner/name at a commit leaves in Hugging Face's cache."""
    repo = home / "hub" / "models--owner--name"
    model_folder(repo / "snapshots" / commit, {"model_type": "llama", "num_hidden_layers": 3}, "model.safetensors")
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(commit)


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hub cache in the test's folder, and no network."""
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf" / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hf"


def test_a_hub_model_is_pinned_to_its_commit_from_the_offline_cache(tmp_path: Path, offline: Path) -> None:
    """
    The branch main moves: the lock records the commit, and an existing lock decides.
    """
    first, second = "a" * 40, "b" * 40
    hub_cache(offline, first)
    model = replace(NANO, kind="hub", repo="owner/name")
    models.build(model, tmp_path, tmp_path)
    lock = files.read_json(tmp_path / "runs/models/tiny/model.lock.json")
    assert (first, "owner/name", "main", 3) == (lock["commit"], lock["repo"], lock["revision"], lock["layers"])

    (offline / "hub/models--owner--name/refs/main").write_text(second)
    models.build(model, tmp_path, tmp_path)

    assert lock == files.read_json(tmp_path / "runs/models/tiny/model.lock.json")


def test_the_error_of_a_missing_hub_model_says_how_to_get_it(tmp_path: Path, offline: Path) -> None:
    """
    There is no traceback of a network library.
    """
    with pytest.raises(ThunderError) as caught:
        models.build(replace(NANO, kind="hub", repo="owner/name"), tmp_path, tmp_path)

    assert str(caught.value).startswith(
        "thunder.toml: models.tiny: owner/name is not in the local cache and cannot be fetched ("
    )
    assert str(caught.value).endswith("); connect once and run `./doit model:tiny`")


def test_a_hub_model_s_config_is_asked_for_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    `doit fit` helps to decide on a download of gigabytes, so the hint fetches one file.
    """
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))

    with pytest.raises(ThunderError) as caught:
        models.config_file(replace(NANO, kind="hub", repo="owner/name"), tmp_path)

    what = "the config.json of owner/name at main is not in the local cache"
    hint = "fetch it alone: `.venv/bin/hf download owner/name config.json --revision main`"
    assert f"thunder.toml: models.tiny: {what}; {hint}" == str(caught.value)


def test_a_hub_model_that_mlx_lm_lacks_is_refused_before_its_weights_are_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    They may have hundreds of gigabytes.
    """
    asked: list[list[str]] = []

    def snapshot(repo: str, revision: str, allow_patterns: list[str], **_: object) -> str:
        asked.append(allow_patterns)
        return str(model_folder(tmp_path / "snapshot", {"model_type": "llama9"}))

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)

    with pytest.raises(ThunderError, match=r"^owner/name: mlx-lm .* has no model_type 'llama9'; it has llama"):
        models.build(replace(NANO, kind="hub", repo="owner/name"), tmp_path, tmp_path / "out")
    assert [["config.json"]] == asked
