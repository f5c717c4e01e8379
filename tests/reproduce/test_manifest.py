"""Manifests that must not be trusted: each is refused with a message."""

import copy
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.manifests import RUN, Change, edited, stopped
from tests.helpers.project_copy import Copy
from thunder_train import ThunderError
from thunder_train.core import files
from thunder_train.reproduce import manifest

HOSTILE: dict[str, tuple[Change, str]] = {
    "recipe name": (
        lambda run: run["recipe"].update(name="../../x"),
        "recipe.name: '../../x' contains characters that are not allowed",
    ),
    "dataset name": (
        lambda run: run["recipe"]["dataset"].update(name="a/b"),
        "recipe.dataset.name: 'a/b' contains characters that are not allowed",
    ),
    "template": (
        lambda run: run["recipe"]["dataset"].update(templates=["../secret"]),
        "recipe.dataset: '../secret' is not a printable path inside the project",
    ),
    "source": (
        lambda run: run["inputs"]["sources"][0].update(path="/etc/passwd"),
        "inputs: '/etc/passwd' is not a printable path inside the project",
    ),
    "control character": (
        lambda run: run["inputs"]["templates"][0].update(path="a\x1b[2Jb"),
        "inputs: 'a\\x1b[2Jb' is not a printable path inside the project",
    ),
    "model file": (
        lambda run: run["model"]["files"][0].update(path="../../.ssh/id"),
        "model.files: '../../.ssh/id' is not a printable path inside the project",
    ),
    "output twice": (lambda run: run["outputs"].append(run["outputs"][0]), "outputs: 'adapter/adapter_config.json' "),
    "schema": (lambda run: run.update(schema="thunder.run/9"), "has schema 'thunder.run/9', but this version reads "),
    "no recipe": (
        lambda run: run["recipe"].pop("train"),
        "is not the manifest of a run: its recipe needs either train or adapter",
    ),
    "huge number": (
        lambda run: run["metrics"]["evaluation"]["adapter"]["valid"].update(loss=10**400),
        "is not the manifest of a run: a number has more than 64 bits",
    ),
    "wrong flags": (
        lambda run: run.update(flags=["--report-to"]),
        "is not the manifest of a run: Expected `object`, got `array` - at `$.flags`",
    ),
    "wrong type": (
        lambda run: run["recipe"].update(name=3),
        "is not the manifest of a run: Expected `str`, got `int` - at `$.recipe.name`",
    ),
}


@pytest.mark.parametrize("case", sorted(HOSTILE))
def test_a_hostile_manifest_is_refused(built: Copy, tmp_path: Path, case: str) -> None:
    """
    Its names and paths would become files here.
    """
    change, expected = HOSTILE[case]
    (tmp_path / "runs/smoke").mkdir(parents=True)
    shutil.copy(built.path / RUN, tmp_path / RUN)
    path = edited(Copy(tmp_path), change)

    with pytest.raises(ThunderError) as caught:
        manifest.read(path)

    assert str(caught.value).startswith(f"{path}: {expected}")


def test_a_manifest_that_was_edited_by_hand_is_refused(built: Copy, tmp_path: Path) -> None:
    """
    run_id is the hash of the run's identity.
    """
    run = files.read_json(built.path / RUN)
    run["recipe"]["train"]["seed"] = 1
    files.write_json(tmp_path / "manifest.json", run)

    with pytest.raises(ThunderError, match=f"run_id: is '{run['run_id']}', but the manifest's content gives '"):
        manifest.read(tmp_path / "manifest.json")


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '"x"', "NaN", "[" * 100_000, '{"schema": ' * 5_000, '{"schema": "\\ud800"}', "\0\xff"]
)
def test_an_invalid_manifest_is_refused_without_a_traceback(tmp_path: Path, text: str) -> None:
    """
    Garbage, endless nesting, half a surrogate.
    """
    (tmp_path / "manifest.json").write_bytes(text.encode("latin-1"))

    with pytest.raises(ThunderError) as caught:
        manifest.read(tmp_path / "manifest.json")

    assert str(caught.value).startswith(f"{tmp_path / 'manifest.json'}: ")


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("device", "cannot be read: is no plain file; "),
        ("pipe", "cannot be read: is no plain file; "),
        ("huge", "has more than 67108864 bytes; "),
    ],
)
def test_a_manifest_without_end_is_refused(tmp_path: Path, kind: str, expected: str) -> None:
    """
    A device or a huge file must not fill the memory; nobody may ever write to a pipe.
    """
    path = Path("/dev/zero") if kind == "device" else tmp_path / "manifest.json"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "huge":
        path.touch()
        os.truncate(path, 1 << 40)

    with pytest.raises(ThunderError) as caught:
        manifest.read(path)

    assert str(caught.value).startswith(f"{path}: {expected}")


def test_paths_outside_the_project_are_reduced_to_their_name() -> None:
    """
    A manifest is committed, so it must not name folders of one machine.
    """
    paths = ("", "data/a.json", "/home/me/a.json", "../a.json", "b/../a.json")

    assert ["", "data/a.json", "a.json", "a.json", "a.json"] == [files.portable(path) for path in paths]


def test_every_wrong_key_of_its_recipe_is_reported(project: Copy, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The recipe in a manifest passes the same checks as a file.
    """

    def change(run: dict[str, Any]) -> None:
        run["recipe"]["train"].update(num_iters="many", learnin_rate=1)
        run["recipe"]["model"].update(layers=[1])

    with pytest.raises(ThunderError) as caught:
        stopped(project, change, monkeypatch)

    path = project.path / "edited.json"
    assert [
        f"{path}: models.nano.layers: must be a whole number, is [1]; change its type",
        f"{path}: train.learnin_rate: unknown key 'learnin_rate'; did you mean 'learning_rate'?",
        f"{path}: train.num_iters: must be a whole number, is 'many'; change its type",
    ] == str(caught.value).splitlines()


def test_a_manifest_of_the_schema_before_is_read(built: Copy, tmp_path: Path) -> None:
    """
    It had operational keys and the rendered files; what they said decided nothing, and its run_id stays its own.
    """
    now = files.read_json(built.path / RUN)
    then = copy.deepcopy(now) | {"schema": manifest.EARLIER}
    then["recipe"]["train"] |= {"max_restarts": 3, "report_to": ["wandb"], "stall_timeout_s": 600}
    then["recipe"]["evaluate"]["gate"]["timeout_s"] = 60
    then["recipe"]["build"] = {"environment": "mlx", "tolerance": then.pop("tolerance")}
    then["flags"] |= {"--max-restarts": 3, "--hostfile": "runs/smoke/hostfile.json"}
    then["outputs"] += [{"path": name, "sha256": "0" * 64} for name in ("launch.sh", "evaluate.sh", "hostfile.json")]
    then["run_id"] = manifest.run_id_of(then)
    files.write_json(tmp_path / "then.json", then)

    read = manifest.read(tmp_path / "then.json")

    assert now["run_id"] != read["run_id"] == then["run_id"]
    assert now == {**read, "run_id": now["run_id"]}


@pytest.mark.parametrize("part", ["recipe", "flags", "outputs"])
def test_a_broken_manifest_of_the_schema_before_is_refused(built: Copy, tmp_path: Path, part: str) -> None:
    """
    Without a traceback.
    """
    files.write_json(tmp_path / "then.json", {**files.read_json(built.path / RUN), "schema": manifest.EARLIER, part: 3})

    with pytest.raises(ThunderError, match="is not the manifest of a run"):
        manifest.read(tmp_path / "then.json")
