"""The guarantees of the build, G1 to G11, against the real doit in a copy of the project."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.helpers.project_copy import PROJECT, Copy

pytestmark = pytest.mark.ranks

DATA = "data/agp-nko-corrections"
ADAPTER = "runs/smoke/adapter/adapters.safetensors"
AFTER_TRAINING = ["evaluate:smoke", "report:smoke", "manifest:smoke"]


def made_files(project: Copy) -> dict[str, tuple[int, int]]:
    """(time, inode) of every file that stages make."""
    made = [path for folder in ("runs", "data") for path in (project.path / folder).rglob("*") if path.is_file()]
    return {str(path): (path.stat().st_mtime_ns, path.stat().st_ino) for path in made}


def test_g1_nothing_changed(project: Copy) -> None:
    """Nothing runs, no file is rewritten, no hash is recomputed while size, mtime, ctime and inode are unchanged."""
    project.doit()  # the copy has new inodes: this one hashes
    time.sleep(0.1)
    project.doit()
    before = made_files(project)
    count = "import dodo, sys; from doit.doit_cmd import DoitMain; from thunder_train.build.key import STATS;"
    count += "DoitMain().run([]); print('hashed', STATS.hashed)"
    done = subprocess.run(
        [sys.executable, "-c", count],
        cwd=project.path,
        capture_output=True,
        text=True,
        check=True,
    )

    assert "hashed 0" == done.stdout.splitlines()[-1]
    assert before == made_files(project)
    assert [] == project.doit().ran


def test_g2_one_key_of_one_recipe_changed(project: Copy) -> None:
    """Only the stages that read that key, in that recipe."""
    shutil.copy(project.path / "recipes/smoke.toml", project.path / "recipes/other.toml")
    project.doit("scripts:other", "hostfile:other")
    project.edit("recipes/smoke.toml", "max_tokens = 64", "max_tokens = 8")

    assert ["scripts:smoke", *AFTER_TRAINING] == project.doit("manifest:smoke", "scripts:other").ran


@pytest.mark.slow
def test_g2_a_training_key_retrains(project: Copy) -> None:
    """Only the stages that read that key, in that recipe: the dataset, the model and the preflight stay."""
    project.edit("recipes/smoke.toml", "learning_rate = 1e-6", "learning_rate = 1e-5")

    assert ["scripts:smoke", "train:smoke", *AFTER_TRAINING] == project.doit().ran


def test_g3_identical_output_stops_the_rebuild(project: Copy) -> None:
    """A stage reran and its output is byte-identical: nothing downstream runs (early cutoff)."""
    project.forget_cache()
    source = project.path / "data/sources/policy_smoke_http_fewshot_rust_gate.json"
    source.write_text(source.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    first = project.doit("data:agp-nko-corrections", "scripts:smoke")
    assert ["data:agp-nko-corrections"] == first.ran

    project.forget_cache()
    (project.path / "data/agp-nko-corrections/train.jsonl").unlink()

    assert ["data:agp-nko-corrections"] == project.doit("train:smoke").ran[:1]
    project.doit()
    project.forget_cache()
    (project.path / "data/agp-nko-corrections/train.jsonl").unlink()
    assert ["data:agp-nko-corrections"] == project.doit().ran


@pytest.mark.parametrize(
    "harm", ["edit", *(pytest.param(harm, marks=pytest.mark.slow) for harm in ("truncate", "delete"))]
)
def test_g4_a_harmed_target_is_made_again(project: Copy, harm: str) -> None:
    """A target was edited, truncated or deleted: the stage that makes it runs again."""
    project.forget_cache()
    target = project.path / "runs/smoke/eval.json"
    if harm == "edit":
        target.write_bytes(target.read_bytes().replace(b"thunder", b"THUNDER", 1))
    elif harm == "truncate":
        os.truncate(target, 10)
    else:
        target.unlink()
    good = (project.path / "runs/smoke/manifest.json").read_bytes()

    assert ["evaluate:smoke"] == project.doit().ran
    assert b"thunder" in target.read_bytes()
    assert good == (project.path / "runs/smoke/manifest.json").read_bytes()


def test_g4_a_corrupt_adapter_is_never_evaluated(project: Copy) -> None:
    """A corrupt adapter is never evaluated: it is trained again, to the same bytes."""
    project.forget_cache()
    adapter = project.path / ADAPTER
    good = adapter.read_bytes()
    adapter.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))

    ran = project.doit("evaluate:smoke").ran

    assert ["train:smoke"] == ran
    assert good == adapter.read_bytes()


def test_g8_new_times_and_a_copied_tree(project: Copy) -> None:
    """Touch, git checkout, cp -r: new times, same bytes: nothing runs."""
    for path in project.path.rglob("*"):
        if path.is_file() and ".thunder" not in path.parts:
            os.utime(path)

    assert [] == project.doit().ran


def test_g9_same_size_and_time_other_bytes(project: Copy) -> None:
    """Same size and time, other bytes: the stage runs."""
    template = project.path / "templates/evaluate.sh.j2"
    before = template.stat()
    project.edit("templates/evaluate.sh.j2", "scores", "Scores")
    os.utime(template, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert before.st_size == template.stat().st_size

    assert ["scripts:smoke"] == project.doit("scripts:smoke").ran


def test_g10_a_failed_action_keeps_the_old_targets(project: Copy) -> None:
    """An action fails: its old, valid targets are kept until new ones are complete; the exit status is not 0."""
    files = [project.path / "runs/smoke" / name for name in ("adapter/adapters.safetensors", "metrics.jsonl")]
    before = [path.read_bytes() for path in files]
    project.edit("recipes/smoke.toml", "max_seq_len = 512", "max_seq_len = 16")

    done = project.doit()

    assert 1 == done.status
    assert ["scripts:smoke", "train:smoke"] == done.ran
    assert "training smoke: ended with status 2; read the lines above and runs/smoke/logs/" in done.output
    assert "Traceback" not in done.output
    assert before == [path.read_bytes() for path in files]


def test_g10_a_failed_stage_runs_again(project: Copy) -> None:
    """A stage that failed is stale, whatever its old targets contain."""
    project.edit("thunder.toml", 'evidence_kind = "smoke"', 'evidence_kind = "smoke"\nreferences = ""')
    source = project.path / "data/sources/policy_smoke_http_fewshot_rust_gate.json"
    good = source.read_bytes()
    source.write_bytes(b"{")
    failed = project.doit("data:agp-nko-corrections")
    source.write_bytes(good)

    project.forget_cache()

    assert 1 == failed.status
    assert ["data:agp-nko-corrections"] == project.doit("data:agp-nko-corrections").ran


@pytest.mark.skipif(shutil.which("git") is None, reason="a clone needs git")
def test_g11_a_fresh_clone_makes_the_committed_manifests(built: Copy) -> None:
    """Fresh clone, then ./doit: every committed manifest comes out byte-identical on the same platform."""
    committed = subprocess.run(
        ["git", "ls-files", f"{DATA}/manifest.json", "runs/smoke/manifest.json", "runs/models/nano/model.lock.json"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert 3 == len(committed)

    for name in committed:
        assert (PROJECT / name).read_text(encoding="utf-8") == (built.path / name).read_text(encoding="utf-8"), name


def test_the_launch_script_alone_trains(project: Copy) -> None:
    """
    `bash runs/smoke/launch.sh` is the whole training: it makes the same adapter, also in another folder.
    """
    adapter = project.path / ADAPTER
    good = adapter.read_bytes()
    adapter.unlink()
    env = {**os.environ, "THUNDER_PYTHON": sys.executable}
    script = [str(project.path / "runs/smoke/launch.sh")]
    subprocess.run(["bash", *script], cwd="/", env=env, check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["bash", *script, "--adapter-path", "else/where"], env=env, check=True, stdout=subprocess.DEVNULL)

    assert good == adapter.read_bytes() == (project.path / "else/where/adapters.safetensors").read_bytes()


def test_doit_list_info_and_dry_commands_keep_working(project: Copy) -> None:
    """
    The build extends doit and hides nothing of it.
    """
    assert "train:smoke" in project.doit("list", "--all").output
    assert "up-to-date" in project.doit("info", "train:smoke").output
    assert 0 == project.doit("-n", "2", "--continue").status
    assert "complete -o default -F _doit doit" in project.doit("tabcompletion", "--shell", "bash").output


def test_a_broken_recipe_is_one_clear_message(fresh: Copy) -> None:
    """
    A user's mistake gives no traceback, and stops only the tasks of that recipe.
    """
    fresh.edit("recipes/smoke.toml", "num_iters", "num_itres")

    done = fresh.doit("train:smoke")

    assert (0, 1) == (fresh.doit("list").status, done.status)
    assert "recipes/smoke.toml: train.num_itres: unknown key 'num_itres'; did you mean 'num_iters'?" in done.output
    assert "Traceback" not in done.output


def test_a_missing_source_is_one_clear_message(fresh: Copy) -> None:
    """
    The data stage names the missing file.
    """
    Path(fresh.path / "data/sources/synthetic_http_fewshot_rust_gate.json").unlink()

    done = fresh.doit("data")

    assert 1 == done.status
    assert "data/sources/synthetic_http_fewshot_rust_gate.json: " in done.output
    assert "Traceback" not in done.output


def test_a_remote_training_without_its_hosts_stops_at_the_preflight(fresh: Copy) -> None:
    """
    Hostfile and scripts are rendered; the training stops before the model's gigabytes are fetched.
    """
    done = fresh.doit("train:agp-nko-correction")

    assert 1 == done.status
    assert ["scripts:agp-nko-correction", "hostfile:agp-nko-correction", "check:agp-nko-correction"] == done.ran
    assert "host mac4: ssh cannot reach it" in done.output
    assert "host mac5: ssh cannot reach it" in done.output
    assert "Traceback" not in done.output
