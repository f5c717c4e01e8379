"""Which files of this machine a manifest of anyone may read: none that is hidden or lies elsewhere."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.manifests import Change, stopped
from tests.helpers.project_copy import PROJECT, Copy
from thunder_train import ThunderError
from thunder_train.config.toml_io import read_toml
from thunder_train.core import files


def _secret_file(project: Copy) -> str:
    (project.path / ".env").write_text("HF_TOKEN=stolen")
    return ".env"


def _hidden_folder(project: Copy) -> str:
    (project.path / ".git").mkdir()
    (project.path / ".git/config").write_text("[remote]")
    return ".git/config"


def _link_out(project: Copy) -> str:
    (project.path.parent / "id_rsa").write_text("key")
    (project.path / "data/sources/rows.jsonl").symlink_to(project.path.parent / "id_rsa")
    return "data/sources/rows.jsonl"


def _folder_out(project: Copy) -> str:
    (project.path.parent / "ssh").mkdir()
    (project.path.parent / "ssh/id_rsa").write_text("key")
    (project.path / "data/more").symlink_to(project.path.parent / "ssh")
    return "data/more/id_rsa"


def _link_to_hidden(project: Copy) -> str:
    (project.path / "data/sources/rows.jsonl").symlink_to(project.path / _secret_file(project))
    return "data/sources/rows.jsonl"


OUT, HIDDEN = "is a link out of the project", "is a hidden file"
HARMFUL = [
    (_secret_file, HIDDEN),
    (_hidden_folder, HIDDEN),
    (_link_out, OUT),
    (_folder_out, OUT),
    (_link_to_hidden, HIDDEN),
]


@pytest.mark.parametrize("key", ["path", "references", "templates"])
@pytest.mark.parametrize(("make", "what"), HARMFUL)
def test_a_manifest_reads_no_hidden_file_and_follows_no_link_out(
    project: Copy, monkeypatch: pytest.MonkeyPatch, make: Callable[[Copy], str], what: str, key: str
) -> None:
    """
    Their text would become rows, and go to every host. Not even their hash is shown.
    """
    path = make(project)

    def change(run: dict[str, Any]) -> None:
        dataset = run["recipe"]["dataset"]
        if key == "templates":
            dataset["templates"].append(path)
        else:
            dataset["sources"][0][key] = path
        run["inputs"]["templates" if key == "templates" else "sources"].append({"path": path, "sha256": "0" * 64})

    verdict = stopped(project, change, monkeypatch)

    hint = "name it in the current thunder.toml if it belongs to the run"
    assert (f"{path}: {what}, which only the manifest names; {hint}",) == verdict.problems


def test_a_link_that_the_current_project_names_is_followed(project: Copy, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Sources on another disk are the user's own choice.
    """
    source = project.path / "data/sources/policy_smoke_http_fewshot_rust_gate.json"
    shutil.move(source, project.path.parent / "rows.json")
    source.symlink_to(project.path.parent / "rows.json")

    assert ("building smoke again: was not started",) == stopped(project, lambda run: None, monkeypatch).problems


@pytest.mark.parametrize("make", [_secret_file, _link_out])
def test_a_model_folder_shows_no_hidden_file_and_no_link_out(
    project: Copy, monkeypatch: pytest.MonkeyPatch, make: Callable[[Copy], str]
) -> None:
    """
    The files of a model are linked into the clean folder.
    """
    made = make(project)

    def change(run: dict[str, Any]) -> None:
        run["recipe"]["model"].update(kind="path", path="models")
        run["model"]["files"] = [{"path": "config.json", "sha256": "0" * 64}]

    (project.path / "models/config.json").symlink_to(project.path / made)
    verdict = stopped(project, change, monkeypatch)

    assert 1 == len(verdict.problems)
    assert verdict.problems[0].startswith("models/config.json: is a ")


@pytest.mark.parametrize("path", ["runs/smoke", "runs/smoke/logs", "runs/./smoke", "Runs/Smoke/logs"])
def test_a_model_cannot_lie_where_the_run_is_written(project: Copy, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    """
    Its files are links to this project: the build in the clean folder would write through them.
    """
    verdict = stopped(project, lambda run: run["recipe"]["model"].update(kind="path", path=path), monkeypatch)

    assert f"model nano: {path}: is a folder that the run writes into" == verdict.problems[0]


def with_template(path: str, sha256: str | None) -> Change:
    """A change of a manifest: its model names a chat template, of this content if the manifest has a hash of it."""

    def change(run: dict[str, Any]) -> None:
        run["recipe"]["model"] |= {"chat_template": path, "template": {"enable_thinking": True}, "end_answers": False}
        if sha256:
            run["inputs"]["chat_template"] = {"path": path, "sha256": sha256}

    return change


@pytest.mark.parametrize(("make", "what"), HARMFUL)
def test_a_chat_template_is_no_hidden_file_and_no_link_out(
    project: Copy, monkeypatch: pytest.MonkeyPatch, make: Callable[[Copy], str], what: str
) -> None:
    """
    It is read as a program of a sandbox, and its errors quote it.
    """
    path = make(project)

    verdict = stopped(project, with_template(path, "0" * 64), monkeypatch)

    hint = "name it in the current thunder.toml if it belongs to the run"
    assert (f"{path}: {what}, which only the manifest names; {hint}",) == verdict.problems


def test_a_chat_template_has_the_content_that_the_run_used(project: Copy, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Another one would train another adapter under the same run_id.
    """
    path = "templates/chat/plain.jinja"
    shutil.copytree(PROJECT / "templates/chat", project.path / "templates/chat", dirs_exist_ok=True)
    sha256 = files.sha256(project.path / path)

    verdicts = [stopped(project, with_template(path, each), monkeypatch) for each in (sha256, "0" * 64, None)]

    changed = f"has changed: its sha256 is {sha256}, but the run used {'0' * 64}; restore it"
    assert [
        ("building smoke again: was not started",),
        (f"{path}: {changed}",),
        (f"{path}: has no sha256 in the manifest",),
    ] == [verdict.problems for verdict in verdicts]
    model = read_toml(Path(verdicts[0].folder) / "thunder.toml", "thunder.toml", "")["models"]["nano"]
    assert (path, {"enable_thinking": True}, False) == (model["chat_template"], model["template"], model["end_answers"])


@pytest.mark.parametrize("path", ["../x.jinja", "/etc/passwd", "a\x1b.jinja"])
def test_a_chat_template_lies_in_the_project(project: Copy, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    """
    A manifest of anyone reads nothing of the user's.
    """
    with pytest.raises(ThunderError, match="is not a printable path inside the project"):
        stopped(project, with_template(path, "0" * 64), monkeypatch)
