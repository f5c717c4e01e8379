"""What a manifest of anyone may say, run and read here; everything else is refused before anything is built."""

import shlex
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.manifests import RUN, Change, edited, stopped
from tests.helpers.project_copy import Copy
from thunder_train import ThunderError
from thunder_train.config import fields
from thunder_train.config.project import SECRETS, Recipe
from thunder_train.config.project_file import ProjectFile
from thunder_train.config.toml_io import read_toml
from thunder_train.core import files, process
from thunder_train.evaluate.external_gate import VARIABLES
from thunder_train.reproduce import foreign
from thunder_train.reproduce.compare import IMPOSSIBLE, Verdict
from thunder_train.reproduce.reproduce import reproduce

EVIL = ["sh", "-c", "env > stolen"]
TEXT = "sh -c 'env > stolen'"
FLAG = "if you want that, add --run-command 'sh -c '\"'\"'env > stolen'\"'\"'' to `./doit reproduce -m PATH`"
READ_IT = "read it: it can do whatever you can"
ASKS = f"evaluate.gate.command: the manifest asks to run `{TEXT}`, but "


def with_gate(**gate: Any) -> Change:
    """A change of a manifest: its recipe has this gate."""
    return lambda run: run["recipe"]["evaluate"]["gate"].update(gate)


def add_gate(project: Copy, table: str) -> None:
    """Give the current recipe a gate."""
    project.edit("recipes/smoke.toml", "[evaluate.probe]", f"[evaluate.gate]\n{table}\n\n[evaluate.probe]")


def clean_folders(project: Copy) -> list[Path]:
    """Folders in which runs are made again."""
    return [path for path in (project.path / ".thunder/reproduce").glob("*") if path.is_dir()]


def clean_recipe(verdict: Verdict) -> dict[str, Any]:
    """The recipe in the clean folder of a reproduction that was kept."""
    return read_toml(Path(verdict.folder) / "recipes/smoke.toml", "recipes/smoke.toml", "")


def declared() -> dict[str, set[str]]:
    """{table of a manifest's recipe: keys that the configuration declares}."""
    recipe, project = fields.table(Recipe), fields.table(ProjectFile)
    tables = {"": recipe}
    for kind in ("cluster", "dataset", "model"):
        tables[kind] = project[f"{kind}s"]["valuesrules"]["schema"]
    for name in ("train", "adapter", "evaluate", "promotion"):
        tables[name] = recipe[name]["schema"]
    for name in ("gate", "probe"):
        tables[f"evaluate.{name}"] = tables["evaluate"][name]["schema"]
    tables["evaluate.profiles.NAME"] = tables["evaluate"]["profiles"]["valuesrules"]["schema"]
    tables["dataset.sources"] = tables["dataset"]["sources"]["schema"]["schema"]
    tables["dataset.orthography_table"] = tables["dataset"]["orthography_table"]["schema"]
    tables["dataset.orthography_table.ratios"] = tables["dataset.orthography_table"]["ratios"]["schema"]["schema"]
    return {name: set(table) for name, table in tables.items()}


@pytest.mark.parametrize("table", sorted(foreign.TAKEN))
def test_each_key_is_taken_or_left_on_purpose(table: str) -> None:
    """
    A new key is refused until it is listed: whoever adds it decides whether strangers may set it.
    """
    manifests_only = {"cluster": {"name", "local", "weights"}, "dataset": {"name"}, "model": {"name"}}
    files_only = {"": {"description", "build", "report"}, "dataset": {"template"}}
    listed = foreign.TAKEN[table] | foreign.IGNORED.get(table, frozenset())

    assert declared()[table] - files_only.get(table, set()) == listed - manifests_only.get(table, set())


@pytest.mark.parametrize(
    ("part", "key"),
    [
        ("", "hooks"),
        ("cluster", "wrapper"),
        ("dataset", "template"),
        ("dataset.sources", "url"),
        ("model", "trust_remote_code"),
        ("train", "callback"),
        ("evaluate", "command"),
        ("evaluate.gate", "shell"),
        ("evaluate.probe", "command"),
        ("promotion", "command"),
        ("", "build"),
    ],
)
def test_a_key_that_is_not_listed_is_refused(
    project: Copy, monkeypatch: pytest.MonkeyPatch, part: str, key: str
) -> None:
    """
    `template` is one: beside `templates` it would name a path that nobody checks.
    """

    def change(run: dict[str, Any]) -> None:
        table = run["recipe"]
        for name in part.split(".") if part else ():
            table = table[name]
        (table[0] if isinstance(table, list) else table)[key] = "../../secret"

    with pytest.raises(ThunderError) as caught:
        stopped(project, change, monkeypatch)

    place = f"{part}.{key}" if part else key
    assert str(caught.value).startswith(f"{project.path / 'edited.json'}: {place}: unknown key {key!r}; ")
    assert [] == clean_folders(project)


def test_error_rates_of_its_own_come_with_the_manifest(project: Copy, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Their definitions decide numbers, and the current thunder.toml may have others under their names.
    """
    keys = {"unit": "word", "case": "folded"}

    verdict = stopped(project, lambda run: run["recipe"]["evaluate"].update(profiles={"mine": keys}), monkeypatch)

    assert {"mine": keys} == clean_recipe(verdict)["evaluate"]["profiles"]


@pytest.mark.parametrize(
    ("profiles", "expected"),
    [
        ({"mine": {"hook": "x"}}, "evaluate.profiles.NAME.hook: unknown key 'hook'; "),
        ({"mine": {"unit": "x"}}, "evaluate.profiles.mine.unit: is 'x'; "),
        ({"../x": {}}, "evaluate.profiles.../x: '../x' contains characters that are not allowed; "),
        ({"mine": 3}, "evaluate.profiles.mine: must be a table, is 3; "),
        ([], "evaluate.profiles: must be a table, is []; "),
    ],
)
def test_what_is_no_error_rate_is_refused(
    project: Copy, monkeypatch: pytest.MonkeyPatch, profiles: Any, expected: str
) -> None:
    """
    Names and keys of any kind, as of any other table.
    """
    with pytest.raises(ThunderError) as caught:
        stopped(project, lambda run: run["recipe"]["evaluate"].update(profiles=profiles), monkeypatch)

    assert str(caught.value).startswith(f"{project.path / 'edited.json'}: {expected}")


def _no_such_recipe(project: Copy) -> None:
    (project.path / "recipes/smoke.toml").rename(project.path / "recipes/other.toml")
    project.edit("thunder.toml", 'recipes = ["smoke"]', 'recipes = ["other"]')


@pytest.mark.parametrize(
    ("today", "reason"),
    [
        (lambda project: None, "the current recipe 'smoke' has no external gate"),
        (lambda project: add_gate(project, 'command = ["cc-gate"]'), "the current recipe 'smoke' runs `cc-gate`"),
        (
            lambda project: add_gate(project, 'command = ["sh", "-c", "env > stolen", ""]'),
            "the current recipe 'smoke' runs `sh -c 'env > stolen' ''`",
        ),
        (_no_such_recipe, "the current project has no recipe 'smoke'"),
        (
            lambda project: project.edit("recipes/smoke.toml", "num_iters = 4", "num_iters = 0"),
            "the current project has problems, so it names no command (`./doit list` shows them)",
        ),
    ],
)
def test_a_command_that_nobody_here_names_makes_it_impossible(
    project: Copy, monkeypatch: pytest.MonkeyPatch, today: Callable[[Copy], None], reason: str
) -> None:
    """
    A manifest from anyone must not run its author's program; nothing has been built when the verdict is given.
    """
    today(project)

    verdict = stopped(project, with_gate(command=EVIL), monkeypatch)

    assert (IMPOSSIBLE, (f"{ASKS}{reason}; {READ_IT}; {FLAG}",)) == (verdict.word, verdict.problems)
    assert [] == clean_folders(project)


def test_the_command_of_the_current_recipe_runs_with_its_own_program_and_variables(
    project: Copy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Only the current recipe says which variables its gate gets; the file that it names is there, and can be run.
    """
    add_gate(project, 'command = ["tools/gate.sh", "smoke"]\nenv = ["GATE_MODE"]')
    (project.path / "tools").mkdir()
    (project.path / "tools/gate.sh").write_text("#!/bin/sh\n")
    (project.path / "tools/gate.sh").chmod(0o755)

    change = with_gate(command=["tools/gate.sh", "smoke"], env=["AWS_PROFILE"])
    verdict = stopped(project, change, monkeypatch)

    assert ["GATE_MODE"] == clean_recipe(verdict)["evaluate"]["gate"]["env"]
    assert 0o755 == (Path(verdict.folder) / "tools/gate.sh").stat().st_mode & 0o777


def test_a_confirmed_command_gets_no_variable_of_the_manifest(project: Copy, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Whoever confirms a command has seen the command, not the variables beside it.
    """
    change = with_gate(command=EVIL, env=["AWS_PROFILE"])

    gate = clean_recipe(stopped(project, change, monkeypatch, confirmed=TEXT))["evaluate"]["gate"]

    assert (EVIL, []) == (gate["command"], gate["env"])


@pytest.mark.parametrize("confirmed", ["sh", "sh -c", f"{TEXT} ", TEXT.replace("'", '"'), "sh -c env > stolen", "*"])
def test_only_the_exact_command_confirms_it(project: Copy, monkeypatch: pytest.MonkeyPatch, confirmed: str) -> None:
    """
    Half a command, or one that means the same to a shell, is not what was asked.
    """
    path = edited(project, with_gate(command=EVIL))

    verdict = reproduce(path, project.path, confirmed)

    reason = f"the current recipe 'smoke' has no external gate; --run-command confirms `{confirmed}`"
    assert (IMPOSSIBLE, (f"{ASKS}{reason}; {READ_IT}; {FLAG}",)) == (verdict.word, verdict.problems)


@pytest.mark.parametrize("hidden", ["\x1b[2K", "\u202e", "\u200b", "\n", "\0", "\u00a0"])
def test_a_command_that_cannot_be_shown_cannot_be_confirmed(project: Copy, hidden: str) -> None:
    """
    What a person reads on the terminal would be another command than the one that runs.
    """
    command = ["sh", "-c", f"true{hidden}evil"]

    verdict = reproduce(edited(project, with_gate(command=command)), project.path, confirmed=shlex.join(command))

    last = "it has characters that cannot be shown, so only a recipe of this project can name it"
    assert IMPOSSIBLE == verdict.word
    assert verdict.problems[0].endswith(f"; {READ_IT}; {last}")


def test_nothing_is_reported_and_no_token_is_handed_on(project: Copy, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    `report_to` would send the user's rows and losses with the user's key; the build needs no token at all.
    """
    argv: list[str] = []

    def stop(words: list[str], where: str, hint: str) -> None:
        argv.extend(words)
        raise ThunderError("was not started", where=where)

    monkeypatch.setattr(process, "tool", stop)
    verdict = reproduce(edited(project, lambda run: run["recipe"]["train"].update(report_to=["wandb"])), project.path)

    assert "report_to" not in clean_recipe(verdict)["train"]
    assert set(SECRETS) == {value for word, value in pairwise(argv) if word == "-u"}


def test_how_a_run_is_supervised_is_the_current_recipes_to_say(project: Copy, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Operational keys are in no manifest, and one that a stranger adds is left: a slow machine keeps its own timeouts.
    """
    project.edit("recipes/smoke.toml", "max_seq_len", 'stall_timeout_s = 4000\nreport_to = ["wandb"]\nmax_seq_len')

    verdict = stopped(project, lambda run: run["recipe"]["train"].update(max_restarts=900), monkeypatch)

    table = clean_recipe(verdict)["train"]
    assert (4000, 0, False) == (table["stall_timeout_s"], table["max_restarts"], "report_to" in table)


@pytest.mark.ranks
def test_the_flag_runs_the_command_without_any_secret(
    project: Copy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    From the command line: refused without the flag, run with it, and the program finds no token in its environment.
    """
    for name in (*SECRETS, "AWS_SECRET_ACCESS_KEY", "GITHUB_TOKEN"):
        monkeypatch.setenv(name, "stolen")
    seen, code = tmp_path / "seen", tmp_path / "gate.py"
    code.write_text(
        "import json, os, sys\n"
        f"open({str(seen)!r}, 'w').write(json.dumps(dict(os.environ)))\n"
        "for line in sys.stdin: print(json.dumps({'id': json.loads(line)['id'], 'verdict': 'reject'}))\n"
    )
    command = [sys.executable, str(code)]
    path = str(edited(project, with_gate(command=command)))

    refused = project.doit("reproduce", "-m", path)
    was_run = seen.exists()
    confirmed = project.doit("reproduce", "-m", path, "--run-command", shlex.join(command))

    assert (2, False) == (refused.status, was_run)
    assert f": impossible\nevaluate.gate.command: the manifest asks to run `{shlex.join(command)}`" in refused.output
    assert 1 == confirmed.status, confirmed.output  # the manifest's decisions are those of the built-in gate
    environment = files.read_json(seen)
    assert set(environment) - {"LC_CTYPE", "__CF_USER_TEXT_ENCODING"} <= set(VARIABLES)  # Python and macOS add these
    assert "stolen" not in environment.values()


@pytest.mark.parametrize("commit", ["", "main", "../../../../../../etc", "A" * 40, "a" * 41])
def test_a_hub_model_needs_a_commit(project: Copy, monkeypatch: pytest.MonkeyPatch, commit: str) -> None:
    """
    The commit is part of a path in the hub cache, and a branch pins nothing.
    """

    def change(run: dict[str, Any]) -> None:
        run["recipe"]["model"].update(kind="hub", repo="owner/name")
        run["model"]["commit"] = commit

    with pytest.raises(ThunderError) as caught:
        stopped(project, change, monkeypatch)

    where = project.path / "edited.json"
    assert f"{where}: model.commit: is not 40 hex digits; restore the manifest" == str(caught.value)


def test_each_rank_has_one_weight(project: Copy, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A local rank is started for each weight: a million of them would stop this machine.
    """
    with pytest.raises(ThunderError) as caught:
        stopped(project, lambda run: run["recipe"]["cluster"].update(weights=[1.0] * 1_000_000), monkeypatch)

    where = project.path / "edited.json"
    assert f"{where}: cluster.weights: has 1000000 weights for 2 ranks; give one per rank" == str(caught.value)


def test_the_manifests_promotion_decides(project: Copy, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The limits of the current defaults would give another decision.
    """
    verdict = stopped(project, lambda run: run["recipe"]["promotion"].update(min_rows=7), monkeypatch)

    assert 7 == clean_recipe(verdict)["promotion"]["min_rows"]


def test_a_manifest_names_no_variable(project: Copy) -> None:
    """
    Neither a cluster's nor a gate's: they are the project's alone.
    """
    recipe = files.read_json(project.path / RUN)["recipe"]

    assert "envs" not in recipe["cluster"]
    assert "env" not in recipe["evaluate"]["gate"]
