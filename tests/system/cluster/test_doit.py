"""The build over hosts: `doit` on head, every rank on another host."""

import shutil

import pytest

from tests.helpers.inputs import write
from tests.helpers.project_copy import PROJECT, Copy
from tests.system.cluster.lab import VENV, Lab
from tests.system.cluster.machine import PROJECT_FOLDER

HOST = '[[clusters.lab.hosts]]\nssh = "{}"\nips = ["{}"]\n'
SAME = ("adapter/adapters.safetensors", "adapter/done.json", "predictions.jsonl", "eval.json")


@pytest.fixture
def it(two: Lab) -> Lab:
    """A head with the project, and hosts with only an environment."""
    hosts = "".join(HOST.format(host.name, host.address) for host in two.hosts)
    head = two.head.project
    with (head / "thunder.toml").open("a") as file:
        file.write(f'[clusters.lab]\nfolder = "{PROJECT_FOLDER}"\n{hosts}')
    text = (PROJECT / "recipes/smoke.toml").read_text()
    (head / "recipes/lab.toml").write_text(text.replace('cluster = "local"', 'cluster = "lab"'))
    for host in two.hosts:
        shutil.rmtree(host.project)
        host.project.mkdir()
        (host.project / ".venv").symlink_to(VENV)
    return two


def test_one_command_syncs_trains_evaluates_and_brings_it_all_home(it: Lab, built: Copy) -> None:
    """
    From bare hosts to the evaluation, every number is that of two local ranks. Removing a host's project folder removes
    everything from it.
    """
    done = it.head.run([".venv/bin/python", "-m", "thunder_train.cli", "evaluate:lab"], timeout=300)

    assert 0 == done.returncode, done.stdout + done.stderr
    for name in SAME:
        assert (built.path / "runs/smoke" / name).read_bytes() == (it.head.project / "runs/lab" / name).read_bytes()
    for host in it.hosts:
        left = {path.name for path in (host.project / ".thunder").iterdir()}
        assert left <= {"partial", "staging", "hashes.json", "synced.json", "tokens"}
        assert [] == [*(host.project / ".thunder").glob("partial/*"), *(host.project / ".thunder").glob("staging/*")]
        assert {".ssh", "projects"} == {path.name for path in host.home.iterdir()}
        assert [] == [*(host.folder / "tmp").iterdir()]
    again = it.head.run([".venv/bin/python", "-m", "thunder_train.cli", "evaluate:lab"])
    assert (0, False) == (again.returncode, ".  " in again.stdout), again.stdout


@pytest.mark.slow
def test_new_rows_are_corrected_on_the_hosts(it: Lab, project: Copy) -> None:
    """
    They get what two local ranks answer, and leave nothing there.
    """
    letters = "ߊߋߌߍߎ"
    rows = [{"feat_id": number, "asr_text": f"ߞߏ {letters[: number % 5 + 1]}"} for number in range(9)]
    for root in (it.head.project, project.path):
        write(root / "new.jsonl", rows)
    done = it.head.run(
        [".venv/bin/python", "-m", "thunder_train.cli", "correct:lab", "--rows", "new.jsonl"], timeout=300
    )

    assert 0 == done.returncode, done.stdout + done.stderr
    assert 0 == project.doit("correct:smoke", "--rows", "new.jsonl").status
    remote, local = (
        root / "corrected/new.jsonl" for root in (it.head.project / "runs/lab", project.path / "runs/smoke")
    )
    assert local.read_bytes() == remote.read_bytes()
    assert 9 == len(local.read_bytes().splitlines())
    for host in it.hosts:
        assert [] == [*(host.project / ".thunder").glob("partial/*")]


@pytest.mark.slow
def test_more_steps_and_another_recipe_go_on_from_what_the_hosts_trained(it: Lab, project: Copy) -> None:
    """
    The last checkpoint comes home when a training ends, and goes to the hosts with the next; so does a start adapter.
    """
    second = 'extends = "{}"\n[train]\nstart_from = "recipe:{}"\nlearning_rate = 1e-3\n'
    for root, first in ((it.head.project, "lab"), (project.path, "smoke")):
        (root / "recipes/second.toml").write_text(second.format(first, first))
    doit = [".venv/bin/python", "-m", "thunder_train.cli", "train:second"]
    done = it.head.run(doit, timeout=300)
    assert 0 == done.returncode, done.stdout + done.stderr
    assert ["0000004.safetensors"] * 2 == [path.name for path in (it.head.project / ".thunder/last").glob("*/*")]
    for root, first in ((it.head.project, "lab"), (project.path, "smoke")):
        recipe = root / f"recipes/{first}.toml"
        recipe.write_text(recipe.read_text().replace("num_iters = 4", "num_iters = 8"))

    done = it.head.run(doit, timeout=300)

    assert 0 == done.returncode, done.stdout + done.stderr
    assert 2 == done.stdout.count(
        "step 4/8  goes on from here, as a training of 4 steps left it\n"
    ) + done.stdout.count("begins with the adapter in runs/lab/adapter")
    shutil.rmtree(project.path / ".thunder/last", ignore_errors=True)
    assert 0 == project.doit("train:second").status
    for ours, theirs in (("smoke", "lab"), ("second", "second")):
        adapters = [project.path / f"runs/{ours}/{SAME[0]}", it.head.project / f"runs/{theirs}/{SAME[0]}"]
        assert adapters[0].read_bytes() == adapters[1].read_bytes()
