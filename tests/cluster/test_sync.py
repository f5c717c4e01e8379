"""Sync: every host gets the files that it lacks, all or none, and keeps its own.

ssh is a script. tests/system/cluster/test_sync.py has a real sshd.
"""

import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.helpers.fake_hosts import COMMIT, WEIGHTS, Site, code, refusal, site
from tests.helpers.project_copy import PROJECT
from thunder_train.cluster import required_files, sync, transfer
from thunder_train.cluster.required_files import Needs
from thunder_train.config.project import Recipe
from thunder_train.core import files, paths
from thunder_train.core.stat_cache import StatCache

MAKE = f"""#!/bin/sh
mkdir -p .venv/bin && ln -sf {sys.executable} .venv/bin/python && cp requirements.lock .venv/
echo "$PYTHON $@" >>made
"""
"""What ./doit does on a host."""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    """A site with a little code."""
    return code(site(tmp_path, monkeypatch))


def sent(synced: sync.Synced) -> list[tuple[str, int]]:
    """(host, files sent) of every host."""
    return [(host.host, host.sent) for host in synced.hosts]


def test_an_empty_host_gets_what_a_launch_needs_and_nothing_else(here: Site) -> None:
    """
    Dropped rows, the audit, logs and other files stay at home.
    """
    here.write("notes.txt", "mine")
    here.write("data/rows/dropped.jsonl", "x")
    here.write("thunder_train/__pycache__/a.pyc", "x")
    here.write("runs/one/launch.sh", "exec\n")

    synced = sync.sync(here.recipe(), here.home)

    expected = {
        "data/rows/manifest.json",
        *(f"data/rows/{name}.jsonl" for name in ("train", "valid", "test")),
        "doit",
        "recipes/one.toml",
        "runs/models/tiny/files/config.json",
        "runs/models/tiny/files/model.safetensors",
        "runs/models/tiny/model.lock.json",
        "runs/one/launch.sh",
        "templates/prompts/correct.j2",
        "thunder.toml",
        "thunder_train/a.py",
    }
    assert [("mac4", 13), ("mac5", 13)] == sent(synced)
    for host in ("mac4", "mac5"):
        assert {name: (here.home / name).read_bytes() for name in expected} == here.tree(host)
        assert os.access(here.there(host, "doit"), os.X_OK)
        assert not here.there(host, ".thunder/incoming").exists()


def test_nothing_to_do_is_one_question_a_host(here: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Every training syncs first, so a sync of complete hosts must cost almost nothing.
    """
    sync.sync(here.recipe(), here.home)
    monkeypatch.setattr(transfer, "push", None)
    start_s = time.perf_counter()

    synced = sync.sync(here.recipe(), here.home)

    assert [("mac4", 0), ("mac5", 0)] == sent(synced)
    assert 2.0 > time.perf_counter() - start_s
    assert ["nothing to do", "nothing to do"] == [line.split(": ")[1].rsplit(",", 1)[0] for line in sync.lines(synced)]


def test_a_change_of_same_size_and_time_is_seen(here: Site) -> None:
    """
    Files are compared by hash: a look at size and time would skip this one.
    """
    recipe = here.recipe()
    sync.sync(recipe, here.home)
    path = here.there("mac5", "data/rows/train.jsonl")
    stat = path.stat()
    path.write_text("tRain\n")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))

    synced = sync.sync(recipe, here.home)

    assert [("mac4", 0), ("mac5", 1)] == sent(synced)
    assert "train\n" == path.read_text()


def test_two_files_of_one_content_are_sent_once_and_stay_two(here: Site) -> None:
    """
    A user may edit one of them there.
    """
    for name in ("one", "two"):
        here.write(f"thunder_train/{name}.py", "same = True\n")

    sync.sync(here.recipe(), here.home)

    one, two = (here.there("mac4", f"thunder_train/{name}.py") for name in ("one", "two"))
    assert "same = True\n" == one.read_text() == two.read_text()
    assert not one.samefile(two)


def test_a_hosts_own_files_are_kept(here: Site) -> None:
    """
    A project there may be a user's clone: files in the place of ours are put aside, others are not touched.
    """
    recipe = here.recipe()
    for name, text in (("thunder.toml", "# edited there\n"), ("thunder_train/own.py", "OWN = 1\n")):
        here.there("mac5", name).parent.mkdir(parents=True, exist_ok=True)
        here.there("mac5", name).write_text(text)

    synced = sync.sync(recipe, here.home)

    assert "mac5: replaced thunder.toml; its own is in .thunder/replaced/" in sync.lines(synced)
    assert "# edited there\n" == here.there("mac5", ".thunder/replaced/thunder.toml").read_text()
    assert "OWN = 1\n" == here.there("mac5", "thunder_train/own.py").read_text()
    here.write("thunder_train/a.py", "A = 2\n")  # a file that sync brought is not the host's own
    assert [(), ()] == [host.replaced for host in sync.sync(recipe, here.home).hosts]


def test_only_what_sync_brought_is_removed_and_only_if_unchanged(here: Site) -> None:
    """
    A module deleted here must be deleted there, unless a user edited it there.
    """
    for name in ("gone", "edited"):
        here.write(f"thunder_train/{name}.py", "x = 1\n")
    recipe = here.recipe()
    sync.sync(recipe, here.home)
    here.there("mac5", "thunder_train/edited.py").write_text("x = 2\n")
    for name in ("gone", "edited"):
        (here.home / f"thunder_train/{name}.py").unlink()

    synced = sync.sync(recipe, here.home)

    assert [("thunder_train/edited.py", "thunder_train/gone.py"), ("thunder_train/gone.py",)] == [
        host.removed for host in synced.hosts
    ]
    assert "x = 2\n" == here.there("mac5", "thunder_train/edited.py").read_text()


def test_what_another_recipe_brought_is_not_removed(here: Site) -> None:
    """
    Two recipes on one cluster must not send each other's gigabytes again and again.
    """
    here.write("runs/one/launch.sh", "one\n")
    here.write("runs/two/launch.sh", "two\n")
    one, two = here.recipe("one"), here.recipe("two")
    sync.sync(one, here.home)
    sync.sync(two, here.home)

    assert [("mac4", 0), ("mac5", 0)] == sent(sync.sync(one, here.home))
    assert here.there("mac4", "runs/two/launch.sh").exists()


def test_the_adapter_goes_to_the_first_rank_alone(here: Site) -> None:
    """
    An evaluation's rank 0 reads it and sends it to the others.
    """
    here.write("runs/one/adapter/adapters.safetensors", "weights")

    sync.sync(here.recipe(), here.home)

    path = "runs/one/adapter/adapters.safetensors"
    assert [True, False] == [here.there(host, path).exists() for host in ("mac4", "mac5")]


HUB_MODEL = 'kind = "hub"\nrepo = "me/tiny"'
LOCATE = "import sys; from thunder_train.worker import model; print(model.locate('me/tiny', sys.argv[1]))"


def test_a_hub_model_is_found_by_the_worker_and_lies_in_the_project_folder(here: Site) -> None:
    """
    Hosts need no network of their own, and when the folder is removed, gigabytes do not stay behind in some cache.
    """
    recipe = here.recipe(model=HUB_MODEL)
    sync.sync(recipe, here.home)
    done = subprocess.run(
        [sys.executable, "-c", LOCATE, COMMIT],
        cwd=here.there("mac5"),
        env={"PATH": os.environ["PATH"], "HOME": str(here.homes / "mac5"), "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert 0 == done.returncode, done.stderr
    folder = here.there("mac5") / done.stdout.strip()
    assert WEIGHTS == {path.name: path.read_bytes() for path in folder.iterdir()}
    assert [here.place.partition("/")[0]] == [path.name for path in (here.homes / "mac5").iterdir()]
    assert [("mac4", 0), ("mac5", 0)] == sent(sync.sync(recipe, here.home))


def test_a_hub_model_that_a_host_has_is_linked_and_not_sent(here: Site) -> None:
    """
    A user who tried the model there has its gigabytes already; a link costs neither time nor space.
    """
    recipe = here.recipe(model=HUB_MODEL)
    own = here.homes / "mac5/.cache/huggingface/hub/models--me--tiny"
    (own / "snapshots" / COMMIT).mkdir(parents=True)
    (own / "blobs").mkdir()
    for name, content in WEIGHTS.items():
        (own / "blobs" / name).write_bytes(content)
        (own / "snapshots" / COMMIT / name).symlink_to(f"../../blobs/{name}")

    synced = sync.sync(recipe, here.home)

    assert [("mac4", 12), ("mac5", 10)] == sent(synced)
    linked = here.there("mac5", f".thunder/hub/models--me--tiny/snapshots/{COMMIT}/model.safetensors")
    assert (own / "blobs/model.safetensors").samefile(linked)


def test_an_unreadable_hub_cache_is_ignored(here: Site) -> None:
    """
    It only saves time: its files can be sent as well.
    """
    recipe = here.recipe(model=HUB_MODEL)
    own = here.homes / "mac5/.cache/huggingface/hub/models--me--tiny/snapshots" / COMMIT
    own.mkdir(parents=True)
    (own / "model.safetensors").symlink_to("model.safetensors")  # any error of the system: this one is ELOOP

    assert [("mac4", 12), ("mac5", 12)] == sent(sync.sync(recipe, here.home))


def test_a_model_outside_of_the_project_is_compared_and_never_written(here: Site) -> None:
    """
    Sync writes into the project folder only; the user copies folders elsewhere.
    """
    recipe = here.recipe(model='kind = "path"\npath = "../base"')

    assert [
        f"host {host}: ../base/{name} is missing or differs; {required_files.ELSEWHERE_HINT}"
        for host in ("mac4", "mac5")
        for name in WEIGHTS
    ] == refusal(sync.sync, recipe, here.home)
    for host in ("mac4", "mac5"):
        shutil.copytree(here.home / "../base", here.there(host, "../base"))
    assert [("mac4", 10), ("mac5", 10)] == sent(sync.sync(recipe, here.home))


def test_the_environment_is_made_from_the_same_lock(here: Site, capfd: pytest.CaptureFixture[str]) -> None:
    """
    ./doit makes .venv when its lock has changed; otherwise nothing is run there.
    """
    here.write("requirements.lock", "mlx==1\n")
    here.write("doit", MAKE).chmod(0o755)
    recipe = here.recipe()

    twice = [sync.sync(recipe, here.home) for _ in range(2)]

    assert [(True, True), (False, False)] == [tuple(host.has_new_environment for host in one.hosts) for one in twice]
    minor = f"python{sys.version_info.major}.{sys.version_info.minor}"
    assert f"{minor} python3 --version\n" == here.there("mac5", "made").read_text()
    errors = sorted(capfd.readouterr().err.splitlines())
    assert [f"{host}: making .venv there from requirements.lock, as ./doit does" for host in ("mac4", "mac5")] == errors


@pytest.mark.parametrize(
    "python",
    [
        None,
        "exit 127",
        "kill -ABRT $$",
        'case "$*" in *sysconfig*) exit 1 ;; esac',
        'case "$*" in *sysconfig*) echo 3.99; exit ;; esac',
    ],
    ids=["gone", "not found", "library not loaded", "packages of another version", "another version"],
)
def test_an_environment_whose_python_does_not_run_is_made_again(here: Site, python: str | None) -> None:
    """
    `brew upgrade` removes the Python below it, and its lock is still the same.
    """
    here.write("requirements.lock", "mlx==1\n")
    here.write("doit", MAKE).chmod(0o755)
    recipe = here.recipe()
    sync.sync(recipe, here.home)
    broken = here.there("mac5", ".venv/bin/python")
    broken.unlink()
    if python is None:
        broken.symlink_to("/opt/homebrew/opt/python@3.11/bin/python3.11")
    else:
        broken.write_text(f'#!/bin/sh\n{python}\nexec {sys.executable} "$@"\n')
        broken.chmod(0o755)

    assert [False, True] == [host.has_new_environment for host in sync.sync(recipe, here.home).hosts]
    assert [False, False] == [host.has_new_environment for host in sync.sync(recipe, here.home).hosts]


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (f"{MAKE}echo mlx==0 >.venv/requirements.lock", "goes on with the environment of an earlier requirements.lock"),
        ("#!/bin/sh", "has no .venv/bin/python that starts, although ./doit has run there"),
    ],
    ids=["earlier", "none"],
)
def test_a_host_on_which_doit_makes_no_current_environment_is_refused(here: Site, make: str, problem: str) -> None:
    """
    Without a network ./doit goes on there in the old environment and succeeds; a rank must not.
    """
    here.write("requirements.lock", "mlx==1\n")
    here.write("doit", make).chmod(0o755)

    assert [f"host {host}: {problem}; {sync.NO_NETWORK}" for host in ("mac4", "mac5")] == refusal(
        sync.sync, here.recipe(), here.home
    )


def test_a_host_without_this_machines_python_is_refused(here: Site) -> None:
    """
    The preflight would refuse it too; the hint says what to install, and nothing has to be removed by hand.
    """
    here.write("requirements.lock", "mlx==1\n")
    other = "rm .venv/bin/python; printf '#!/bin/sh\\necho 3.10\\n' >.venv/bin/python; chmod +x .venv/bin/python"
    here.write("doit", f"{MAKE}{other}\n").chmod(0o755)

    assert [
        f"host {host}: has made its environment with Python 3.10, and this machine has {sync.MINOR}; "
        f"install Python {sync.MINOR} there and run it again"
        for host in ("mac4", "mac5")
    ] == refusal(sync.sync, here.recipe(), here.home)


def test_before_dataset_and_model_are_made_their_files_are_left_out(here: Site) -> None:
    """
    A preflight may come before them; then there is nothing to compare yet.
    """
    recipe = here.recipe()
    shutil.rmtree(here.home / "data")
    shutil.rmtree(here.home / "runs")
    before = {path: file.bytes for path, file in existing(recipe, here).files.items()}
    here.write("data/rows/train.jsonl", "train\n")
    here.write("runs/one/hostfile.json", "{}")
    lock = {"files": [{"path": "model.safetensors", "bytes": 5, "sha256": "bb"}]}
    files.write_json(here.home / "runs/models/tiny/model.lock.json", lock)

    after = existing(recipe, here).files

    assert {"doit", "recipes/one.toml", "templates/prompts/correct.j2", "thunder.toml", "thunder_train/a.py"} == set(
        before
    )
    assert {
        "data/rows/train.jsonl": 6,
        "runs/one/hostfile.json": 2,
        "runs/models/tiny/model.lock.json": (here.home / "runs/models/tiny/model.lock.json").stat().st_size,
        "runs/models/tiny/files/model.safetensors": 5,
    } == {path: file.bytes for path, file in after.items() if path not in before}
    assert "bb" == after["runs/models/tiny/files/model.safetensors"].sha256


def test_a_hub_model_is_needed_in_the_projects_own_cache(here: Site) -> None:
    """
    At the commit that the lock pins.
    """
    needs = existing(here.recipe(model=HUB_MODEL), here)

    assert f".thunder/hub/models--me--tiny/snapshots/{COMMIT}/config.json" in needs.files


def existing(recipe: Recipe, site: Site) -> Needs:
    """The needs of a recipe as far as its files exist."""
    return required_files.existing_needs(recipe, site.home, StatCache(site.home / paths.STATS))


def test_a_chat_template_goes_to_every_host(here: Site) -> None:
    """
    Each rank turns messages into tokens itself, wherever in the project the file lies.
    """
    here.write("mine/chat.jinja", "{{ messages }}")
    recipe = here.recipe()
    named = replace(recipe, model=replace(recipe.model, chat_template="mine/chat.jinja"))

    sync.sync(named, here.home)

    assert ["{{ messages }}"] * 2 == [here.there(host, "mine/chat.jinja").read_text() for host in ("mac4", "mac5")]
