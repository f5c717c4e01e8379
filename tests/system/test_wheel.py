"""The package as its users install it: a wheel in an environment without this repository, in a project of their own."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from tests.helpers.project_copy import PROJECT

THUNDER = """
[project]
recipes = ["nko"]
[models.base]
kind = "path"
path = "models/nko-nano-base"
[datasets.nko]
system = "Correct it."
template = "templates/prompts/correct.j2"
[[datasets.nko.sources]]
kind = "rows"
path = "heard.jsonl"
references = "said.jsonl"
evidence_kind = "synthetic"
"""
RECIPE = 'model = "base"\ndataset = "nko"\n[train]\nnum_iters = 1\nnum_layers = 1\n[evaluate]\nmax_tokens = 4\n'
RECIPE += "[evaluate.probe]\n" + "".join(
    f"max_{name} = 1.0\n" for name in ("empty", "pad", "loop", "wrong_script", "over_long")
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of packages with the wheel's files, and beside it the scripts `thunder` and `doit`."""
    folder = tmp_path_factory.mktemp("wheel")
    argv = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(argv, cwd=PROJECT, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    for name, start in (
        ("thunder", "from thunder_train.cli.__main__ import thunder; thunder()"),
        ("doit", "import sys; from doit.doit_cmd import DoitMain; sys.exit(DoitMain().run(sys.argv[1:]))"),
    ):
        (folder / name).write_text(f"#!{sys.executable}\n{start}\n")
        (folder / name).chmod(0o755)
    return folder / "site"


def run(site: Path, program: str, *words: str, cwd: Path) -> "subprocess.CompletedProcess[str]":
    """Run a program that finds the wheel, and of this repository only the environment's packages."""
    packages = sysconfig.get_path("purelib")
    env = {**os.environ, "PYTHONPATH": str(site), "THUNDER_PROGRAM": "", "PYTHONDONTWRITEBYTECODE": "1"}
    del env["THUNDER_PROGRAM"]
    code = f"import sys; sys.path = [p for p in sys.path if p != {str(PROJECT)!r}]"
    assert packages
    start = (site.parent / program).read_text().split("\n", 1)[1]
    argv = [sys.executable, "-P", "-c", f"{code}; sys.argv[0] = {program!r}\n{start}", *words]
    return subprocess.run(argv, cwd=cwd, env=env, capture_output=True, text=True, check=False, timeout=240)


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A project of somebody who has the package and nothing of this repository."""
    (tmp_path / "own/recipes").mkdir(parents=True)
    for name, text in (("dodo.py", "from thunder_train.dodo import *\n"), ("thunder.toml", THUNDER)):
        (tmp_path / "own" / name).write_text(text)
    (tmp_path / "own/recipes/nko.toml").write_text(RECIPE)
    for name, source in (("heard", "predictions"), ("said", "references")):
        lines = (PROJECT / f"data/sources/nko_nano_{source}.jsonl").read_text().splitlines(keepends=True)
        (tmp_path / f"own/{name}.jsonl").write_text("".join(lines[:60]))
    return tmp_path / "own"


@pytest.mark.ranks
def test_an_installed_package_builds_a_project_of_its_own(site: Path, own: Path) -> None:
    """
    With the package's templates and base, from a subfolder too, and nothing committed names where they lie.
    """
    (own / "below").mkdir()
    built = run(site, "thunder", cwd=own / "below")

    assert 0 == built.returncode, built.stdout + built.stderr
    committed = [
        own / "runs/nko/manifest.json",
        own / "data/nko/manifest.json",
        own / "runs/models/base/model.lock.json",
    ]
    assert [] == [path for path in committed if str(site) in path.read_text() or str(PROJECT) in path.read_text()]
    assert "templates/prompts/correct.j2" == json.loads(committed[1].read_text())["templates"][0]["path"]
    assert "" == run(site, "thunder", "why", "--check", cwd=own).stderr
    assert "-- manifest:nko" in run(site, "doit", cwd=own).stdout
    assert "no task is named 'nik'" in run(site, "thunder", "why", "nik", cwd=own).stderr

    (own / "templates/prompts").mkdir(parents=True)
    shutil.copy(PROJECT / "templates/prompts/correct.j2", own / "templates/prompts")
    why = run(site, "thunder", "why", "data:nko", cwd=own).stdout
    assert "data:nko: templates/prompts/correct.j2: lies elsewhere now\n" == why
    assert "+  data:nko" in run(site, "thunder", "data:nko", cwd=own).stdout
    (own / "templates/prompts/correct.j2").write_text("Mine: {{ asr_text }}\n")
    assert "templates/prompts/correct.j2: content changed" in run(site, "thunder", "why", "data:nko", cwd=own).stdout


def test_a_project_that_it_began_is_one(site: Path, tmp_path: Path) -> None:
    """
    The demonstration's rows and base come with the package.
    """
    begun = run(site, "thunder", "init", "demo", cwd=tmp_path)

    assert (0, "next: cd demo && thunder") == (begun.returncode, begun.stdout.splitlines()[-1]), begun.stderr
    assert "data:nko-nano: never built" in run(site, "thunder", "why", cwd=tmp_path / "demo").stdout


def test_another_project_of_the_environment_keeps_doits_own_ways(site: Path, tmp_path: Path) -> None:
    """
    Somebody's doit of another purpose must not get our memory, our lock or our errors.
    """
    (tmp_path / "dodo.py").write_text(
        "def task_a():\n    return {'actions': ['echo hi >out'], 'targets': ['out'], 'clean': True}\n"
    )

    assert 0 == run(site, "doit", cwd=tmp_path).returncode
    assert "a -> " in run(site, "doit", "dumpdb", cwd=tmp_path).stdout.replace("b'a'", "a")
    assert 0 == run(site, "doit", "clean", cwd=tmp_path).returncode
    assert ["dodo.py"] == [path.name for path in tmp_path.iterdir() if not path.name.startswith((".doit", "__py"))]


def test_outside_of_a_project_it_says_how_to_begin_one(site: Path, tmp_path: Path) -> None:
    """
    The first thing that a newcomer types.
    """
    done = run(site, "thunder", cwd=tmp_path)

    assert (3, f"ERROR: {tmp_path}: no project is here; `thunder init NAME` begins one\n") == (
        done.returncode,
        done.stderr,
    )
