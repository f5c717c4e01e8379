"""Whether hosts are ready, from their answers. ssh is a script here; tests/system/cluster has a real sshd."""

import contextlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.test_mac_hosts import MAC
from tests.helpers.fake_hosts import refusal
from tests.helpers.project_copy import PROJECT, wait_for
from tests.helpers.recipes import smoke
from thunder_train.cluster import mac_hosts, preflight
from thunder_train.cluster.required_files import ELSEWHERE_HINT, HostFile, Needs
from thunder_train.config.project import Cluster, Host, Recipe

FACTS: dict[str, Any] = {
    "has_folder": True,
    "has_project": True,
    "has_python": True,
    "python": "3.11.7",
    "mlx": "0.32.4",
    "mlx_lm": "0.32.2",
    "thunder_train": "0.1.0",
    "platform": "darwin-arm64",
    "fast_synch": None,
    "rdma": ["rdma_en2", "rdma_en5"],
    "mac": None,
    "usable_memory_bytes": 12_000_000_000,
    "free_disk_bytes": 50_000_000_000,
    "clock_skew_s": 0.1,
    "files": {
        "data/d/train.jsonl": [9, "aa"],
        "m/model.safetensors": [5_000_000_000, "bb"],
        "thunder_train/a.py": [2, "1"],
        "thunder_train/b.py": [2, "2"],
    },
    "workers": [],
}
RANK_PEAKS = [6_000_000_000, 2_000_000_000]
NEEDS = Needs({path: HostFile(sha256, size) for path, (size, sha256) in FACTS["files"].items()})


def macs(backend: str = "ring", *hosts: Host) -> Cluster:
    """Two remote hosts, or others."""
    two = (Host("mac4", ("10.0.5.1",), ("", "rdma_en5")), Host("mac5", ("10.0.5.2",), ("rdma_en5", "")))
    return Cluster("macs", backend, hosts or two, (), "projects/thunder train", ".venv/bin/python")


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    """The smoke recipe on two Macs."""
    return replace(smoke(tmp_path), cluster=macs())


def problems(recipe: Recipe, host: str = "mac4", needs: Needs = NEEDS, **changed: object) -> list[str]:
    """Problems of a host whose facts are those of this machine, except for changed ones."""
    there = {**FACTS, **changed}
    lacks = preflight.sync_problems(host, there, FACTS, recipe, needs)
    memory = preflight.memory_bytes(host, recipe.cluster, RANK_PEAKS)
    return [str(one) for one in [*lacks, *preflight.host_problems(host, there, recipe, needs, memory)]]


def test_a_host_that_is_as_this_machine_is_ready(recipe: Recipe) -> None:
    """
    Files that only the host has are no problem: sync removes nothing that it did not bring. Nor is another patch
    version of Python: macOS and Homebrew update it by themselves.
    """
    assert [] == problems(recipe, python="3.11.12", files={**FACTS["files"], "thunder_train/old.py": [2, "3"]})


def test_every_problem_of_a_host_is_reported_with_its_hint(recipe: Recipe) -> None:
    """
    Correcting one thing at a time would cost an attempt per thing.
    """
    folder = "projects/thunder train"
    again = f"run `./doit sync:smoke`; if that is not enough, remove {folder}/.venv-* there and run it again"

    assert [
        f"host mac4: has mlx 0.31.1, and this machine 0.32.4; {again}",
        f"host mac4: has no mlx-lm; {again}",
        "host mac4: has Python 3.12.1, and this machine 3.11.7; install Python 3.11 there and run `./doit sync:smoke`",
        "host mac4: has Thunder Train 0.0.9, and this machine 0.1.0; run `./doit sync:smoke`",
        "host mac4: data/d/train.jsonl: missing there; run `./doit sync:smoke`",
        "host mac4: m/model.safetensors: not the same as here; run `./doit sync:smoke`",
        "host mac4: thunder_train/b.py: other code than here; run `./doit sync:smoke`",
        "host mac4: has 4 GB of memory, and its ranks need about 6 GB; "
        "end other programs there, or see `./doit fit:smoke`",
        "host mac4: has 1 MB of free disk, and needs 100 MB; free space there",
        "host mac4: its clock is 75 s behind this machine's; set it: `sudo sntp -sS time.apple.com` on a Mac",
        "host mac4: MLX_METAL_FAST_SYNCH=1 is set: the GPU can hang until a restart; "
        "remove it from the shell's start files there",
        "host mac4: workers of an earlier run still run there: python -m thunder_train.worker (process 7, 8); "
        "end them: `ssh mac4 'kill 7 8'`",
    ] == problems(
        recipe,
        mlx="0.31.1",
        mlx_lm=None,
        python="3.12.1",
        thunder_train="0.0.9",
        files={
            "m/model.safetensors": [5_000_000_000, "cc"],
            "thunder_train/a.py": [2, "1"],
            "thunder_train/b.py": [2, "9"],
        },
        usable_memory_bytes=4_000_000_000,
        free_disk_bytes=1_000_000,
        clock_skew_s=-75.2,
        fast_synch="1",
        workers=[{"pid": 7, "command": "python -m thunder_train.worker"}, {"pid": 8, "command": "x"}],
    )


def test_a_host_without_the_project_says_so_once(recipe: Recipe) -> None:
    """
    Not a line for each file that is missing with it.
    """
    missing: dict[str, Any] = {"has_project": False, "has_python": False, "files": {}, "mlx": None}

    assert ["host mac4: no project there: projects/thunder train is missing; run `./doit sync:smoke`"] == problems(
        recipe, has_folder=False, **missing
    )
    assert [
        "host mac4: no project there: projects/thunder train holds no Thunder Train; run `./doit sync:smoke`"
    ] == problems(recipe, **missing)


def test_a_host_without_its_interpreter_says_which(recipe: Recipe) -> None:
    """
    The versions of the python3 that answered instead would mislead.
    """
    what = "host mac4: .venv/bin/python of projects/thunder train is missing or does not start"
    assert [f"{what}; run `./doit sync:smoke`"] == problems(recipe, has_python=False, mlx=None)


def test_an_interpreter_that_sync_does_not_make_is_its_users_to_correct(recipe: Recipe) -> None:
    """
    Advice to run a sync, which leaves that interpreter alone, would lead in a circle.
    """
    own = replace(recipe, cluster=replace(recipe.cluster, python="/opt/homebrew/bin/python3.11"))
    ours = "or leave out python of [clusters.macs]: then sync makes .venv there"

    assert [
        "host mac4: /opt/homebrew/bin/python3.11 of projects/thunder train is missing or does not start; "
        f"make it run, {ours}"
    ] == problems(own, has_python=False)
    assert [
        f"host mac4: has no mlx; install the same there, {ours}",
        f"host mac4: has Python 3.12.1, and this machine 3.11.7; make it the same, {ours}",
    ] == problems(own, mlx=None, python="3.12.1")


def test_a_disk_must_hold_what_is_still_to_come(recipe: Recipe) -> None:
    """
    The model's gigabytes are not there yet, and sync would fill the disk.
    """
    files_there = {path: row for path, row in FACTS["files"].items() if path != "m/model.safetensors"}

    assert "host mac4: has 5 GB of free disk, and needs 5.1 GB; free space there" in problems(
        recipe, files=files_there, free_disk_bytes=5_000_000_000
    )


def test_ranks_of_one_host_share_its_memory(recipe: Recipe) -> None:
    """
    `doit fit` is right within a quarter, and a training that might fit is not refused.
    """
    host = Host("mac4", ("10.0.5.1",), ())
    shared = replace(recipe, cluster=macs("ring", host, host))
    needs = "its ranks need about 8 GB"

    assert [True, False] == [
        any(needs in one for one in problems(shared, usable_memory_bytes=usable))
        for usable in (6_000_000_000, 7_000_000_000)
    ]


def test_a_host_needs_the_memory_of_its_own_ranks(recipe: Recipe) -> None:
    """
    A small Mac that takes an eighth of the rows need not hold what a large one holds.
    """
    assert [True, False] == [
        any("of memory" in one for one in problems(recipe, host, usable_memory_bytes=3_000_000_000))
        for host in ("mac4", "mac5")
    ]
    assert 0 == preflight.memory_bytes("mac4", recipe.cluster, [])


def test_a_mac_may_use_no_more_than_metal_recommends(recipe: Recipe) -> None:
    """
    The quarter by which `doit fit` may err is no memory of a Mac: beyond the working set it swaps or ends the rank.
    """
    memory = {"usable_memory_bytes": 5_900_000_000}

    assert [] == problems(recipe, **memory)
    assert [
        "host mac4: has 5.9 GB of memory, and its ranks need about 6 GB; lower micro_tokens, or see `./doit fit:smoke`"
    ] == problems(recipe, mac=MAC, **memory)


def test_names_of_files_are_compared_whatever_form_a_mac_gives_them(recipe: Recipe) -> None:
    """
    A Mac may answer é as e and an accent: the file is the same, and was sent again each time.
    """
    needs = Needs({"data/\u00e9.jsonl": HostFile("aa", 9)})

    assert [] == preflight.file_problems("mac4", {"files": {"data/e\u0301.jsonl": [9, "aa"]}}, recipe, needs)


def test_this_machine_needs_no_comparing(recipe: Recipe) -> None:
    """
    Its files are what the others are compared with, and its own workers are kept apart by doit's lock.
    """
    assert [] == problems(recipe, "localhost", files={}, workers=[{"pid": 1, "command": "x"}])


def test_a_model_outside_of_the_project_is_compared_and_the_user_copies_it(recipe: Recipe) -> None:
    """
    A sync writes in the project's folder only.
    """
    needs = Needs(NEEDS.files, elsewhere={"../base/config.json": HostFile("dd", 5)})
    there = {**FACTS["files"], "../base/config.json": [5, "dd"]}

    assert [f"host mac4: ../base/config.json is missing or differs; {ELSEWHERE_HINT}"] == problems(recipe, needs=needs)
    assert [] == problems(recipe, needs=needs, files=there)


def test_fast_synch_is_refused_in_the_cluster_too() -> None:
    """
    Apple's talk calls it critical; MLX's maintainers say to leave it unset, because the GPU hangs until a restart.
    """
    bad = replace(macs(), envs=("A=1", "MLX_METAL_FAST_SYNCH=1"))

    assert [
        "thunder.toml: clusters.macs.envs: MLX_METAL_FAST_SYNCH can make the GPU hang until a restart; remove it"
    ] == [str(one) for one in preflight.environment_problems(bad)]
    assert [] == preflight.environment_problems(macs())


@pytest.mark.parametrize(
    ("backend", "rdma", "expected"),
    [
        ("ring", [], []),
        ("jaccl", ["rdma_en5"], []),
        (
            "jaccl",
            ["rdma_en2", "rdma_en3"],
            [
                "host mac4: has no rdma_en5; it has rdma_en2, rdma_en3; "
                "correct rdma in thunder.toml: the names change when a Mac starts"
            ],
        ),
        (
            "jaccl-ring",
            [],
            [
                "host mac4: has no RDMA device; "
                'RDMA needs Thunderbolt 5, macOS 26.2 and `rdma_ctl enable` in Recovery; or use backend = "ring"'
            ],
        ),
        (
            "jaccl",
            None,
            [
                "host mac4: has no `ibv_devices`, so no RDMA; "
                'RDMA needs Thunderbolt 5, macOS 26.2 and `rdma_ctl enable` in Recovery; or use backend = "ring"'
            ],
        ),
    ],
)
def test_rdma_devices_are_compared_with_the_matrix(backend: str, rdma: list[str] | None, expected: list[str]) -> None:
    """
    jaccl crashes when RDMA is enabled and there is no device, and waits for ever on a wrong one.
    """
    rows = mac_hosts.problems("mac4", {**FACTS, "rdma": rdma}, macs(backend))

    assert expected == [str(one) for one in rows]


def test_every_host_is_asked_and_every_problem_reported(
    tmp_path: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    Correcting one host at a time would cost an attempt per host.
    """
    (tmp_path / "ssh").write_text("#!/bin/sh\necho no route >&2; exit 255\n")
    (tmp_path / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    assert [
        "host mac4: ssh cannot reach it: no route; make `ssh mac4 true` work without a password",
        "host mac5: ssh cannot reach it: no route; make `ssh mac5 true` work without a password",
    ] == refusal(preflight.preflight, recipe, tmp_path / "logs")


def test_a_warning_ends_nothing(
    tmp_path: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    A Mac on battery can train, if its user wants it.
    """
    host = Host("127.0.0.1", ("127.0.0.1",), ())
    local = replace(recipe, cluster=Cluster("local", "ring", (host, host), (), "", ""))
    facts = {**FACTS, "mac": {**MAC, "is_on_battery": True}, "interfaces": []}
    monkeypatch.setattr(preflight, "_facts", lambda *_: facts)
    monkeypatch.setattr(preflight, "_all_reduce", lambda *_: [])

    assert [] == preflight.preflight(local, tmp_path)["notes"]
    assert (
        "warning: host localhost: runs on battery, where macOS may sleep in spite of caffeinate; "
        "connect its power adapter\n"
    ) == capsys.readouterr().err


@pytest.mark.ranks
def test_local_ranks_report_their_size_and_their_sum(tmp_path: Path, recipe: Recipe) -> None:
    """
    The seed's ring smoke: size=2 from each rank, and the all-sum checked against known values.
    """
    host = Host("127.0.0.1", ("127.0.0.1",), ())
    local = replace(recipe, cluster=Cluster("local", "ring", (host, host), (), "", ""))
    report = preflight.preflight(local, tmp_path)

    assert [(0, 2, True), (1, 2, True)] == [(rank["rank"], rank["size"], rank["all_sum"]) for rank in report["ranks"]]
    assert all(rank["bytes_per_second"] > 0 for rank in report["ranks"])
    assert ("thunder.preflight/2", "ring", ["localhost"], []) == (
        report["schema"],
        report["backend"],
        [host["host"] for host in report["hosts"]],
        report["links"],
    )
    json.dumps(report, allow_nan=False)


ALL_REDUCE = """
import sys
from pathlib import Path
from tests.helpers.recipes import smoke
from thunder_train.cluster import preflight
preflight._all_reduce(smoke(Path(sys.argv[1])), Path(sys.argv[1]))
"""


RANK = "-m\0thunder_train.worker.allreduce_check\0--hostfile\0{}"


def with_word(word: str) -> list[int]:
    """Processes whose command line holds a text."""
    pids = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if word.encode() in (folder / "cmdline").read_bytes():
                pids.append(int(folder.name))
    return pids


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="reads /proc")
def test_kill_9_of_the_build_leaves_no_rank_of_its_test(tmp_path: Path) -> None:
    """
    Real ranks, killed before they connect: they took two cores and the ring's ports until their timeout.
    """
    argv = [sys.executable, "-c", ALL_REDUCE, str(tmp_path)]
    with subprocess.Popen(argv, cwd=PROJECT, stderr=subprocess.DEVNULL) as build:
        wait_for(lambda: len(with_word(RANK.format(tmp_path))) == 2)
        build.kill()

    wait_for(lambda: not with_word(str(tmp_path)), seconds=15)


@pytest.mark.parametrize(
    "line",
    ["", "[]", "{}", "nonsense", "[" * 60_000, '{"rank": 0, "size": NaN}', '{"rank": "0"}'],
)
def test_a_rank_that_reports_something_else_is_named(line: str, tmp_path: Path) -> None:
    """
    Its line comes from another machine.
    """
    (tmp_path / "rank-1.log").write_text(f"thunder-smoke {line}\n")

    (problem,) = refusal(preflight._rank_result, 1, "mac5", tmp_path)
    assert problem.startswith("rank 1 (mac5): reported something else than a result of the all-reduce test: ")
