"""What doit answers to words: commands by name, options anywhere, unknown words, recipes that cannot be read."""

import json
import os
from pathlib import Path

import pytest

from tests.helpers.project_copy import Built, Copy, copy_sources

pytestmark = pytest.mark.ranks


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    """A project in which nothing has been built. Tests of this file only look at it."""
    return copy_sources(tmp_path_factory.mktemp("plain"))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("statsu", "no command or task is named 'statsu'; did you mean 'status'?"),
        ("train:smok", "no command or task is named 'train:smok'; did you mean 'train:smoke'?"),
        ("smoke", "no command or task is named 'smoke'; did you mean 'manifest:smoke'?"),
        ("qqq", "no command or task is named 'qqq'; `doit list --all` shows the tasks, `doit help` the commands"),
        ("why train:smok", "no task is named 'train:smok'; did you mean 'train:smoke'?"),
        ("info train:smok", "no task is named 'train:smok'; did you mean 'train:smoke'?"),
        ("help train:smok", "no task is named 'train:smok'; did you mean 'train:smoke'?"),
        ("clean train:smok", "no task is named 'train:smok'; did you mean 'train:smoke'?"),
        ("forget train:smok", "no task is named 'train:smok'; did you mean 'train:smoke'?"),
        ("ignore train:smok", "no task is named 'train:smok'; did you mean 'train:smoke'?"),
        ("list train:smok", "no task is named 'train:smok'; did you mean 'train:smoke'?"),
        ("reset-dep train:smok", "no task is named 'train:smok'; did you mean 'train:smoke'?"),
        ("fit:smoke -- --json", "no command or task is named '--json'; options come before the tasks"),
        ("why --nothing", "doit why: option --nothing not recognized; `doit help why` shows its options"),
        ("-q", "doit run: option -q not recognized; `doit help run` shows its options"),
        (
            "fit:smoke --nothing",
            "option --nothing not recognized by the task before it; options of `doit run` come before the tasks",
        ),
        ("list --backend json", "--backend: what doit remembers here is the project's own; leave the option out"),
        ("--backend dbm list", "--backend: what doit remembers here is the project's own; leave the option out"),
        ("list --backend none", "--backend: what doit remembers here is the project's own; leave the option out"),
        ("list --db-file README.md", "--db-file: what doit remembers here is the project's own; leave the option out"),
        (
            "run --check_file_uptodate md5",
            "--check_file_uptodate: what doit remembers here is the project's own; leave the option out",
        ),
        ("-d recipes list", "-d recipes: is no project's folder, for it holds no thunder.toml; name one that does"),
        ("-f none.py list", "none.py: is missing; name the file of tasks with -f"),
    ],
)
def test_a_wrong_word_is_answered_in_one_sentence(plain: Copy, words: str, expected: str) -> None:
    """
    doit itself answers with its name for the program, `-m`, with the list of its option objects, or with a KeyError.
    """
    done = plain.doit(*words.split())

    assert (3, f"ERROR: {expected}\n") == (done.status, done.output)


def test_a_refused_file_is_untouched(plain: Copy) -> None:
    """
    `--db-file README.md` would set README.md aside as a damaged database.
    """
    (plain.path / "README.md").write_text("text")

    plain.doit("list", "--db-file", "README.md")

    assert "text" == (plain.path / "README.md").read_text()


@pytest.mark.parametrize("words", ["-h", "--help", "help", "help a b"])
def test_help_names_the_program_and_its_commands(plain: Copy, words: str) -> None:
    """
    It is called doit, whatever file started it.
    """
    done = plain.doit(*words.split())

    assert 0 == done.status
    assert "  doit why               show why stages are stale; runs nothing\n" in done.output
    assert "-m " not in done.output


@pytest.mark.parametrize("words", ["why -h", "-h why", "why train:smoke --help", "help why"])
def test_help_on_a_command(plain: Copy, words: str) -> None:
    """
    As other programs have it, before or after the words.
    """
    done = plain.doit(*words.split())

    assert (0, "PURPOSE\n    show why stages are stale; runs nothing\n") == (done.status, done.output[:52])


@pytest.mark.parametrize("words", ["help tokens:smoke", "tokens:smoke -h"])
def test_help_on_a_task_has_its_purpose_and_options(plain: Copy, words: str) -> None:
    """
    A subtask is described by its group.
    """
    output = plain.doit(*words.split()).output

    assert output.startswith("tokens:smoke  Show the tokens that a training will see")
    assert "--rows=ARG" in output


def commands(plain: Copy) -> list[str]:
    """Names of all commands."""
    lines = plain.doit("help").output.split("Commands\n")[1].split("\n\n")[0].splitlines()
    return [line.split()[1] for line in lines]


def test_help_on_every_command(plain: Copy) -> None:
    """
    None of those that `doit help` lists ends in a traceback.
    """
    for command in commands(plain):
        done = plain.doit("help", command)
        assert (0, True) == (done.status, f"doit {command}" in done.output), command


@pytest.mark.parametrize("words", ["why --check train:smoke", "why train:smoke --check"])
def test_options_may_follow_the_tasks(plain: Copy, words: str) -> None:
    """
    doit takes them for tasks.
    """
    done = plain.doit(*words.split())

    assert (1, True) == (done.status, "train:smoke: never built\n" in done.output)


@pytest.mark.parametrize("words", ["", "why ", "clean "])
def test_an_empty_word_is_no_task(plain: Copy, words: str) -> None:
    """
    doit looks at its first letter. An empty variable of a shell script is one.
    """
    done = plain.doit(*words.split(), "")

    assert 3 == done.status
    assert "is named ''; `doit list --all` shows the tasks" in done.output


def from_subfolder(project: Copy, folder: str, *words: str) -> Built:
    """doit as ./doit starts it when it is called in a subfolder."""
    os.environ["THUNDER_CALLER"] = str(project.path / folder)
    try:
        return project.doit(*words)
    finally:
        del os.environ["THUNDER_CALLER"]


def test_d_is_a_path_from_the_callers_folder(plain: Copy, tmp_path: Path) -> None:
    """
    As with make -C: the tasks of this dodo.py in the project there.
    """
    other = copy_sources(tmp_path / "other")
    other.edit("thunder.toml", 'recipes = ["smoke"]', 'recipes = ["nko-nano"]')
    (tmp_path / "other/deep").mkdir()

    done = plain.doit("-d", str(other.path), "why")
    again = from_subfolder(other, "deep", "-d", "..", "why")

    assert done.output == again.output
    assert "manifest:nko-nano: never built" in done.output


def test_a_target_and_an_output_file_are_paths_from_the_callers_folder(fresh: Copy) -> None:
    """
    `cd runs/smoke; ../../doit launch.sh`.
    """
    (fresh.path / "runs/smoke").mkdir(parents=True)
    done = from_subfolder(fresh, "runs/smoke", "-o", "out.txt", "launch.sh")

    assert 0 == done.status, done.output
    assert ".  scripts:smoke\n" == (fresh.path / "runs/smoke/out.txt").read_text()


def test_manifests_are_paths_from_the_callers_folder(fresh: Copy) -> None:
    """
    Of `doit compare` and of `doit reproduce -m`.
    """
    compared = from_subfolder(fresh, "recipes", "compare", "../a.json", "b.json")
    reproduced = from_subfolder(fresh, "recipes", "reproduce", "-m", "b.json")

    assert compared.output.startswith("a.json: is missing")
    assert reproduced.output.startswith("recipes/b.json: is missing")


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

    listed, good, asked = fresh.doit("list"), fresh.doit("scripts:smoke"), fresh.doit("scripts:wip")
    group, why = fresh.doit("hostfile"), fresh.doit("why", "train:wip", "--check")
    rows = {
        row["recipe"]: row["manifest"] for row in json.loads(fresh.doit("status", "--json").output.split("\n", 1)[1])
    }

    assert [(0, 1), (0, 1)] == [(done.status, done.output.count(warning)) for done in (listed, good)]
    assert ["scripts:smoke"] == good.ran
    assert (1, True) == (asked.status, f"TaskFailed - taskid:scripts:wip\n{problem}\n" in asked.output)
    assert (1, True, "hostfile:wip") == (group.status, "hostfile:smoke" in group.ran, group.ran[-1])
    assert (1, True) == (why.status, f"train:wip: broken: {problem}\n" in why.output)
    assert ("broken", "never built") == (rows["wip"], rows["smoke"])
    assert "did you mean 'train:wip'?" in fresh.doit("train:wi").output


def test_a_default_recipe_that_is_missing_stops_only_bare_doit(fresh: Copy) -> None:
    """
    A deleted recipe is a broken one.
    """
    fresh.edit("thunder.toml", 'recipes = ["smoke"]', 'recipes = ["gone", "smoke"]')

    assert ["scripts:smoke"] == fresh.doit("scripts:smoke").ran
    assert "thunder.toml: project.recipes: no recipe is named 'gone'" in fresh.doit("why").output


def test_pyproject_that_cannot_be_read_is_told(fresh: Copy) -> None:
    """
    doit reads its own settings from it, before anything else.
    """
    (fresh.path / "pyproject.toml").write_text("[bad\n")

    done = fresh.doit("list")

    assert 3 == done.status
    assert done.output.startswith("doit: pyproject.toml: is not TOML: Expected ']'")
