"""Sources that a user's task in dodo.py makes: that task runs before `data`, also on the first build."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.helpers.project_copy import Built, Copy, copy_sources, environment, warm
from thunder_train import ThunderError
from thunder_train.build import sources
from thunder_train.build.sources import Sources

DATASET = """
[datasets.made]
template = "templates/prompts/correct.j2"
valid = 0.2
test = 0.2
[[datasets.made.sources]]
kind = "completions"
path = "./made/rows.jsonl"
evidence_kind = "smoke"
[[datasets.made.sources]]
kind = "completions"
path = "made/part-*.jsonl"
evidence_kind = "smoke"
"""
DODO = '''

def task_generate():
    """Rows made from words.txt."""
    for name in ("rows", "part-1", "part-2"):
        yield {
            "name": name,
            "file_dep": ["words.txt"],
            "targets": [f"made/{name}.jsonl"],
            "actions": [(generate, [name])],
        }


def generate(name):
    from pathlib import Path

    from thunder_train.core.files import json_line, write_text

    word = Path("words.txt").read_text()
    rows = [{"id": str(at), "prompt": f"{word} {name} {at}", "completion": f"{name} {at}"} for at in range(20)]
    write_text(f"made/{name}.jsonl", "".join(map(json_line, rows)))
'''
GENERATED = ["generate:part-1", "generate:part-2", "generate:rows"]


def generating_project(folder: Path) -> Copy:
    """A project in which a task of dodo.py makes the rows of the dataset `made`, of which nothing exists yet."""
    project = copy_sources(folder)
    for file, text in (("thunder.toml", DATASET), ("dodo.py", DODO)):
        with (project.path / file).open("a", encoding="utf-8") as stream:
            stream.write(text)
    (project.path / "words.txt").write_text("one")
    return project


@pytest.fixture
def generating(made_once: Copy, tmp_path: Path) -> Copy:
    """Such a project."""
    return warm(generating_project(tmp_path / "project"), made_once)


@pytest.fixture(scope="module")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    """Such a project whose dataset was built. Tests copy it and never change it."""
    project = generating_project(tmp_path_factory.mktemp("made") / "project")
    done = project.doit("data:made")
    assert 0 == done.status, done.output
    return project


@pytest.fixture
def made(made_once: Copy, tmp_path: Path) -> Copy:
    """A copy of it."""
    shutil.copytree(made_once.path, tmp_path / "project")
    return Copy(tmp_path / "project")


def plain_doit(project: Copy, *arguments: str) -> Built:
    """Run doit itself, without this project's program."""
    done = subprocess.run(
        [sys.executable, "-m", "doit", *arguments],
        cwd=project.path,
        env=environment(project.path),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=300,
    )
    ran = [line[3:] for line in done.stdout.splitlines() if line.startswith(".  ")]
    return Built(done.returncode, ran, [], done.stdout)


def why(project: Copy) -> list[str]:
    """Why the dataset would be built now."""
    answer: dict[str, list[str]] = json.loads(project.doit("why", "--json", "data:made").output)
    return answer["data:made"]


@pytest.mark.ranks
def test_sources_are_made_first_and_then_nothing_is_left_to_do(generating: Copy) -> None:
    """
    Before the first build doit sees no file that matches a pattern, and takes ./made/rows.jsonl for another file than
    the target made/rows.jsonl.
    """
    first, again = generating.doit("data:made"), generating.doit("data:made")
    manifest = json.loads((generating.path / "data/made/manifest.json").read_text())

    assert (0, [*GENERATED, "data:made"]) == (first.status, sorted(first.ran[:-1]) + first.ran[-1:])
    assert (0, [], []) == (again.status, again.ran, again.restored)
    assert [20, 20, 20] == [file["rows"] for source in manifest["sources"] for file in source["files"]]
    assert [] == why(generating)
    assert "U data:made" in generating.doit("list", "--all", "--status", "data:made").output


@pytest.mark.ranks
@pytest.mark.parametrize("arguments", [("-n", "2"), ("-n", "2", "-a")])
def test_sources_are_made_first_when_several_tasks_run_at_once(generating: Copy, arguments: tuple[str, ...]) -> None:
    """
    With -n doit starts every task that waits for no other.
    """
    done = generating.doit(*arguments, "data:made")

    assert (0, GENERATED, ["data:made"]) == (done.status, sorted(done.ran[:3]), done.ran[3:])


@pytest.mark.ranks
def test_doit_without_this_projects_program_makes_sources_first(generating: Copy) -> None:
    """
    `doit` and `python -m doit` read the same pyproject.toml, which names the loader.
    """
    first, again = plain_doit(generating, "data:made"), plain_doit(generating, "data:made")

    assert (0, GENERATED, ["data:made"]) == (first.status, sorted(first.ran[:3]), first.ran[3:])
    assert (0, []) == (again.status, again.ran)


@pytest.mark.ranks
def test_sources_that_will_be_made_are_listed(generating: Copy) -> None:
    """
    `doit list --deps` names them before they exist.
    """
    listed = generating.doit("list", "--deps", "data:made").output

    assert {" -  ./made/rows.jsonl", " -  made/part-1.jsonl", " -  made/part-2.jsonl"} <= {*listed.splitlines()}


@pytest.mark.ranks
def test_a_source_made_again_with_other_rows_makes_the_dataset_stale(made: Copy) -> None:
    """
    And `doit why` says so before the task that makes it has run.
    """
    (made.path / "words.txt").write_text("two")

    reasons, done = why(made), made.doit("data:made")

    assert [f"after {name}: its output may change" for name in GENERATED] == sorted(reasons)
    assert (0, "data:made") == (done.status, done.ran[-1])
    assert [] == why(made)


@pytest.mark.ranks
def test_a_source_made_again_with_the_same_rows_builds_nothing(made: Copy) -> None:
    """
    Deleted sources come back as they were, so what was made from them stands.
    """
    for path in (made.path / "made").iterdir():
        path.unlink()

    done = made.doit("data:made")

    assert (0, GENERATED, []) == (done.status, sorted(done.ran), done.restored)


@pytest.mark.ranks
def test_a_forgotten_dataset_is_restored_from_made_sources(made: Copy) -> None:
    """
    `doit forget` removes the record of a task; the run cache has its outputs under the hashes of the same sources.
    """
    made.doit("forget", "data:made")

    done = made.doit("data:made")

    assert (0, [], ["data:made"]) == (done.status, done.ran, done.restored)


@pytest.mark.ranks
def test_a_new_task_for_a_pattern_makes_the_dataset_stale(made: Copy) -> None:
    """
    Its file matches the pattern of a source, and does not exist yet.
    """
    made.edit("dodo.py", '"part-2")', '"part-2", "part-3")')

    reasons, done = why(made), made.doit("data:made")

    assert ["made/part-3.jsonl: new input"] == reasons
    assert (0, ["generate:part-3", "data:made"]) == (done.status, done.ran)


@pytest.mark.ranks
def test_a_missing_source_that_no_task_makes_is_named_by_the_stage(made: Copy) -> None:
    """
    On the first build and on later ones, where doit alone would say "Dependent file does not exist".
    """
    made.edit("thunder.toml", "./made/rows.jsonl", "gone.jsonl")
    first = made.doit("data:made")
    (made.path / "gone.jsonl").write_text((made.path / "made/rows.jsonl").read_text())
    made.doit("data:made")
    (made.path / "gone.jsonl").unlink()
    later = made.doit("data:made")

    expected = "gone.jsonl: is missing; correct the source's path or add the file"
    assert [(1, True)] * 2 == [(done.status, expected in done.output) for done in (first, later)]


@pytest.mark.ranks
def test_a_task_that_does_not_make_its_target_is_named(generating: Copy) -> None:
    """
    A pattern would match fewer files, and the dataset lack rows without a word.
    """
    generating.edit("dodo.py", "(generate, [name])", '(generate, ["rows"])')

    done = generating.doit("data:made")

    hint = "let it write this file, or correct its targets"
    assert 1 == done.status
    assert f"made/part-1.jsonl: is missing: generate:part-1 ran and has not made it; {hint}" in done.output


def fake_task(name: str, *targets: str, inputs: Sources | None = None) -> Any:
    """What `order` looks at in a task of doit's."""
    meta = {} if inputs is None else {"stage": SimpleNamespace(inputs=inputs)}
    return SimpleNamespace(name=name, targets=list(targets), meta=meta, file_dep={*(inputs or {})}, task_dep=[])


@pytest.mark.parametrize(
    ("given", "target", "expected"),
    [
        ("rows.jsonl", "rows.jsonl", ["rows.jsonl"]),
        ("./rows.jsonl", "rows.jsonl", ["./rows.jsonl"]),
        ("rows.jsonl", "{here}/rows.jsonl", ["rows.jsonl"]),
        ("{here}/rows.jsonl", "rows.jsonl", ["{here}/rows.jsonl"]),
        ("made/*.jsonl", "made/a.jsonl", ["made/a.jsonl"]),
        ("made/*.jsonl", "{here}/made/a.jsonl", ["made/a.jsonl"]),
        ("{here}/made/*.jsonl", "made/a.jsonl", ["{here}/made/a.jsonl"]),
        ("made/**/*.jsonl", "made/a.jsonl", ["made/a.jsonl"]),
        ("made/**/*.jsonl", "made/b/c/a.jsonl", ["made/b/c/a.jsonl"]),
        ("made/**/*.jsonl", "made/.b/a.jsonl", None),
        ("made/*.jsonl", "made/.a.jsonl", None),
        ("made/*.jsonl", "made/b/a.jsonl", None),
        ("made/[ab].jsonl", "made/b.jsonl", ["made/b.jsonl"]),
        ("made/*.jsonl", "other/a.jsonl", None),
        ("rows.jsonl", "rows.jsonl.gz", None),
    ],
)
def test_a_target_is_recognised_however_it_is_written(
    given: str, target: str, expected: list[str] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    A source keeps its own spelling, which is that of later builds, when the file exists.
    """
    monkeypatch.chdir(tmp_path)
    given, target = (text.format(here=tmp_path) for text in (given, target))
    inputs = Sources(*(((), (given,)) if "*" in given or "[" in given else ((given,), ())))
    task, maker = fake_task("data:x", inputs=inputs), fake_task("make", target)

    sources.order([task, maker])

    kept = [] if expected is None else [path.format(here=tmp_path) for path in expected]
    assert kept == sorted(path for path in task.file_dep if path in inputs.makers)
    assert ([] if expected is None else ["make"]) == task.task_dep
    if expected is not None:
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        Path(target).touch()
        inputs.look()
        assert kept == [*inputs]


def test_a_folder_that_a_task_makes_comes_before_the_files_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    A task that unpacks an archive names the folder; which files it will hold is known only afterwards.
    """
    monkeypatch.chdir(tmp_path)
    inputs = Sources((), ("corpus/*/train-*.jsonl",))
    task = fake_task("data:x", inputs=inputs)

    sources.order([task, fake_task("unpack", "corpus")])
    (tmp_path / "corpus/nko").mkdir(parents=True)
    (tmp_path / "corpus/nko/train-1.jsonl").touch()
    inputs.look()

    assert (["unpack"], ["corpus/nko/train-1.jsonl"]) == (task.task_dep, [*inputs])


def test_a_folder_as_a_source_stands_for_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Those that are there, and those that a task will make in it.
    """
    monkeypatch.chdir(tmp_path)
    for name in ("corpus/train.jsonl", "corpus/en/test.jsonl", "corpus/.git/config"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    inputs = Sources(("corpus",))
    task = fake_task("data:x", inputs=inputs)

    sources.order([task, fake_task("make", "corpus/valid.jsonl"), fake_task("other", "corpus2/valid.jsonl")])

    assert ["make"] == task.task_dep
    assert {"corpus/train.jsonl", "corpus/en/test.jsonl", "corpus/valid.jsonl"} == task.file_dep


def test_the_stages_own_target_is_no_source_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    data/*/train.jsonl matches the split that the dataset itself will get.
    """
    monkeypatch.chdir(tmp_path)
    task = fake_task("data:x", "data/x/train.jsonl", inputs=Sources((), ("data/*/train.jsonl",)))

    sources.order([task, fake_task("data:y", "data/y/train.jsonl")])

    assert ({"data/y/train.jsonl"}, ["data:y"]) == (task.file_dep, task.task_dep)


def test_all_missing_targets_are_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    One build shows every task that is wrong about its targets.
    """
    monkeypatch.chdir(tmp_path)
    inputs = Sources(("a.jsonl", "b.jsonl"))
    sources.order([fake_task("data:x", inputs=inputs), fake_task("make", "a.jsonl", "b.jsonl")])

    with pytest.raises(ThunderError) as error:
        inputs.check()

    hint = "let it write this file, or correct its targets"
    assert "\n".join(f"{name}.jsonl: is missing: make ran and has not made it; {hint}" for name in "ab") == str(
        error.value
    )
