"""What doit answers to words: commands by name, unknown words, recipes that cannot be read."""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.project_copy import Built, Copy, copy_sources
from thunder_train import ThunderError
from thunder_train.cli.program import Program
from thunder_train.core import caller, process

GRAPH = ("dodo", "thunder_train.dodo")
"""What is imported anew for another project."""


@pytest.fixture(scope="module")
def unbuilt(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    """A project in which nothing has been built. Tests of this file only look at it."""
    return copy_sources(tmp_path_factory.mktemp("plain"))


@pytest.fixture
def plain(unbuilt: Copy, monkeypatch: pytest.MonkeyPatch) -> Iterator[Copy]:
    """That project as the current folder, to run doit in this process, which takes its dodo.py anew."""
    monkeypatch.chdir(unbuilt.path)
    monkeypatch.setattr(process, "follow_signals", lambda: None)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name in GRAPH:
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield unbuilt
    for name in GRAPH:
        sys.modules.pop(name, None)


def refusal(words: list[str]) -> str:
    """What doit says of words that it refuses."""
    with pytest.raises(ThunderError) as error:
        Program().run(words)
    return str(error.value)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("statsu", "no command or task is named 'statsu'; did you mean 'status'?"),
        ("train:smok", "no command or task is named 'train:smok'; did you mean 'train:smoke'?"),
        ("smoke", "no command or task is named 'smoke'; did you mean 'manifest:smoke'?"),
        ("qqq", "no command or task is named 'qqq'; `doit list --all` shows the tasks, `doit help` the commands"),
        ("data:smoke", "no command or task is named 'data:smoke'; there is data:agp-nko-corrections, data:nko-nano"),
        ("why train:smok", "no task is named 'train:smok'; did you mean 'train:smoke'?"),
        ("info train:smok", "no task is named 'train:smok'; did you mean 'train:smoke'?"),
        ("help train:smok", "no task is named 'train:smok'; did you mean 'train:smoke'?"),
        ("clean train:smok", "no task is named 'train:smok'; did you mean 'train:smoke'?"),
        ("forget train:smok", "no task is named 'train:smok'; did you mean 'train:smoke'?"),
        ("ignore train:smok", "no task is named 'train:smok'; did you mean 'train:smoke'?"),
        ("list train:smok", "no task is named 'train:smok'; did you mean 'train:smoke'?"),
        ("reset-dep train:smok", "no task is named 'train:smok'; did you mean 'train:smoke'?"),
        ("fit:smoke -- --json", "no command or task is named '--json'; options come before the tasks"),
        ("why train:smoke --check", "no task is named '--check'; options come before the tasks"),
        ("-r json clean", "'clean' is a command; it comes before its options: `doit clean`"),
        (
            "why --nothing",
            "Error parsing Command: option --nothing not recognized; "
            "`doit help why` shows the options, which come before the tasks",
        ),
        (
            "-q",
            "Error parsing Command: option -q not recognized; "
            "`doit help run` shows the options, which come before the tasks",
        ),
        (
            "fit:smoke --nothing",
            "Error parsing Task: option --nothing not recognized; "
            "`doit help run` shows the options, which come before the tasks",
        ),
        ("list --backend json", "--backend: what doit remembers here is the project's own; leave the option out"),
        ("--backend dbm list", "--backend: what doit remembers here is the project's own; leave the option out"),
        ("list --db-file README.md", "--db-file: what doit remembers here is the project's own; leave the option out"),
        (
            "run --check_file_uptodate md5",
            "--check_file_uptodate: what doit remembers here is the project's own; leave the option out",
        ),
        ("-f none.py list", "Could not find dodo file '{project}/none.py'.\nPlease use '-f' to specify file name."),
    ],
)
def test_a_wrong_word_is_answered_in_one_sentence(plain: Copy, words: str, expected: str) -> None:
    """
    doit itself answers with its name for the program, `-m`, with the list of its option objects, or with a KeyError.
    """
    assert expected.format(project=plain.path) == refusal(words.split())


@pytest.mark.ranks
def test_a_refusal_is_one_line_and_status_3(unbuilt: Copy) -> None:
    """
    The status that doit has for an error before any task runs.
    """
    done = unbuilt.doit("train:smok")

    expected = "ERROR: no command or task is named 'train:smok'; did you mean 'train:smoke'?\n"
    assert (3, expected) == (done.status, done.output)


def test_a_refused_file_is_untouched(plain: Copy) -> None:
    """
    `--db-file README.md` would set README.md aside as a damaged database.
    """
    (plain.path / "README.md").write_text("text")

    refusal(["list", "--db-file", "README.md"])

    assert "text" == (plain.path / "README.md").read_text()


@pytest.mark.parametrize("words", ["-h", "--help", "help", "help a b"])
def test_help_names_the_program_and_its_commands(plain: Copy, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    """
    It is called doit, whatever file started it.
    """
    assert 0 == Program().run(words.split())
    output = capsys.readouterr().out
    assert "  doit why               show why stages are stale; runs nothing\n" in output
    assert "-m " not in output


@pytest.mark.parametrize("words", ["why -h", "-h why", "why train:smoke --help", "help why"])
def test_help_on_a_command(plain: Copy, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    """
    As other programs have it, before or after the words.
    """
    assert 0 == Program().run(words.split())
    assert capsys.readouterr().out.startswith("PURPOSE\n    show why stages are stale; runs nothing\n")


@pytest.mark.parametrize("words", ["help tokens:smoke", "tokens:smoke -h"])
def test_help_on_a_task_has_its_options(plain: Copy, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    """
    Those that `doit tokens:smoke` takes.
    """
    Program().run(words.split())
    output = capsys.readouterr().out

    assert output.startswith("tokens:smoke  ")
    assert "--rows=ARG" in output


@pytest.mark.parametrize("command", [*Program().get_cmds()])
def test_help_on_every_command(plain: Copy, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """
    None of those that `doit help` lists ends in a traceback.
    """
    assert 0 == Program().run(["help", command])
    assert f"doit {command}" in capsys.readouterr().out


@pytest.mark.parametrize("words", ["", "why ", "clean "])
def test_an_empty_word_is_no_task(plain: Copy, words: str) -> None:
    """
    doit looks at its first letter. An empty variable of a shell script is one.
    """
    assert "an empty word is no command and no task" == refusal([*words.split(), ""])


def from_subfolder(project: Copy, folder: str, *words: str) -> Built:
    """doit as ./doit starts it when it is called in a subfolder."""
    os.environ["THUNDER_CALLER"] = str(project.path / folder)
    try:
        return project.doit(*words)
    finally:
        del os.environ["THUNDER_CALLER"]


@pytest.mark.parametrize("words", [["-d", "..", "why"], ["why", "--dir=.."], ["-f", "../dodo.py", "why"]])
def test_d_and_f_are_paths_from_the_callers_folder(
    plain: Copy, words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    As with make -C.
    """
    monkeypatch.setattr(caller, "_folder", str(plain.path / "recipes"))

    Program().run(words)

    assert "manifest:smoke: never built\n" in capsys.readouterr().out


@pytest.mark.ranks
def test_a_target_and_an_output_file_are_paths_from_the_callers_folder(fresh: Copy) -> None:
    """
    `cd runs/smoke; ../../doit launch.sh`.
    """
    (fresh.path / "runs/smoke").mkdir(parents=True)
    done = from_subfolder(fresh, "runs/smoke", "-o", "out.txt", "launch.sh")

    assert 0 == done.status, done.output
    assert ".  scripts:smoke\n" == (fresh.path / "runs/smoke/out.txt").read_text()


def test_manifests_are_paths_from_the_callers_folder(
    plain: Copy, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    Of `doit compare` and of `doit reproduce -m`.
    """
    monkeypatch.setattr(caller, "_folder", str(plain.path / "recipes"))

    assert [3, 3] == [Program().run(["compare", "../a.json", "b.json"]), Program().run(["reproduce", "-m", "b.json"])]
    compared, reproduced = capsys.readouterr().err.splitlines()
    assert compared.startswith("a.json: is missing")
    assert reproduced.startswith("recipes/b.json: is missing")


@pytest.mark.ranks
def test_a_broken_recipe_stops_only_its_own_tasks(fresh: Copy) -> None:
    """
    One warning line, and every other task goes on; bare `doit` makes what it can first.
    """
    (fresh.path / "recipes/wip.toml").write_text("[bad\n")
    fresh.edit("thunder.toml", 'recipes = ["smoke"]', 'recipes = ["wip", "smoke"]')
    problem = (
        "recipes/wip.toml: is not TOML: Expected ']' at the end of a table declaration (at line 1, column 5); "
        "correct that line"
    )
    warning = f"warning: {problem}; tasks of wip cannot run"

    good, group, why = fresh.doit("scripts:smoke"), fresh.doit("hostfile"), fresh.doit("why", "--check", "train:wip")
    rows = {
        row["recipe"]: row["manifest"] for row in json.loads(fresh.doit("status", "--json").output.split("\n", 1)[1])
    }

    assert (0, ["scripts:smoke"], 1) == (good.status, good.ran, good.output.count(warning))
    assert (1, True, "hostfile:wip") == (group.status, "hostfile:smoke" in group.ran, group.ran[-1])
    assert f"TaskFailed - taskid:hostfile:wip\n{problem}\n" in group.output
    assert (1, True) == (why.status, f"train:wip: broken: {problem}\n" in why.output)
    assert ("broken", "never built") == (rows["wip"], rows["smoke"])


def test_pyproject_that_cannot_be_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    doit reads its own settings from it, before anything else.
    """
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pyproject.toml").write_text("[bad\n")

    assert refusal(["list"]).startswith("pyproject.toml: is not TOML: Expected ']'")
