"""Whether hosts are ready: what is made of their answers, and how they are asked. ssh is played by a script here."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from tests.helpers.recipes import smoke
from thunder_train import ThunderError
from thunder_train.agent import client
from thunder_train.cluster import links, preflight
from thunder_train.cluster.links import Way
from thunder_train.cluster.preflight import Wanted
from thunder_train.config.project import Cluster, Host, Recipe
from thunder_train.core import files

INTERFACES = [
    {"name": "lo0", "kind": "loopback", "addresses": ["127.0.0.1/8"]},
    {"name": "bridge0", "kind": "Thunderbolt Bridge", "addresses": ["10.0.5.1/24"]},
    {"name": "en0", "kind": "Wi-Fi", "addresses": ["192.168.1.4/24"]},
]
FACTS = {
    "has_folder": True,
    "has_project": True,
    "has_python": True,
    "python": "3.11.7",
    "mlx": "0.32.4",
    "mlx_lm": "0.32.2",
    "thunder_train": "0.1.0",
    "platform": "darwin-arm64",
    "fast_synch": None,
    "interfaces": INTERFACES,
    "rdma": ["rdma_en2", "rdma_en5"],
    "usable_memory_bytes": 12_000_000_000,
    "free_disk_bytes": 50_000_000_000,
    "clock_skew_s": 0.1,
    "code": {"thunder_train/a.py": "1", "thunder_train/b.py": "2"},
    "files": {"data/d/train.jsonl": [9, "aa"], "m/model.safetensors": [5_000_000_000, "bb"]},
    "workers": [],
}
RANK_PEAKS = [6_000_000_000, 2_000_000_000]
WANTED = [Wanted("data/d/train.jsonl", None, "aa"), Wanted("m/model.safetensors", 5_000_000_000, "bb")]


def macs(backend: str = "ring", *hosts: Host) -> Cluster:
    """Two remote hosts, or others."""
    two = (Host("mac4", ("10.0.5.1",), ("", "rdma_en5")), Host("mac5", ("10.0.5.2",), ("rdma_en5", "")))
    return Cluster("macs", backend, hosts or two, (), "projects/thunder train", ".venv/bin/python")


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    """The smoke recipe on two Macs."""
    return replace(smoke(tmp_path), cluster=macs())


def told(recipe: Recipe, host: str = "mac4", **changed: object) -> list[str]:
    """Problems of a host whose facts are those of this machine but for some."""
    there = {**FACTS, **changed}
    found = preflight.to_bring(host, there, FACTS, recipe, WANTED)
    memory = preflight.memory_bytes(host, recipe.cluster, RANK_PEAKS)
    return [str(one) for one in [*found, *preflight.own_problems(host, there, recipe, WANTED, memory)]]


def test_a_host_that_is_as_this_machine_is_ready(recipe: Recipe) -> None:
    """
    Code that only the host has is in nobody's way: sync removes nothing that it did not bring. Nor is another patch
    of the same Python: macOS and Homebrew install them as they come.
    """
    assert [] == told(recipe, python="3.11.12", code={**FACTS["code"], "thunder_train/old.py": "3"})  # type: ignore[dict-item]


def test_every_problem_of_a_host_is_told_with_its_hint(recipe: Recipe) -> None:
    """
    Mending one thing at a time would cost a try per thing.
    """
    again = "run `./doit sync:smoke`; if that is not enough, remove projects/thunder train/.venv there and run it again"

    assert [
        f"host mac4: has mlx 0.31.1, and this machine 0.32.4; {again}",
        f"host mac4: has no mlx-lm; {again}",
        "host mac4: has Python 3.12.1, and this machine 3.11.7; "
        "install Python 3.11 there, remove projects/thunder train/.venv there and run `./doit sync:smoke`",
        "host mac4: has Thunder Train 0.0.9, and this machine 0.1.0; run `./doit sync:smoke`",
        "host mac4: data/d/train.jsonl: missing there; run `./doit sync:smoke`",
        "host mac4: m/model.safetensors: not the same as here; run `./doit sync:smoke`",
        "host mac4: thunder_train/b.py: other code than here; run `./doit sync:smoke`",
        "host mac4: has 4 GB of memory, and its ranks need about 6 GB; "
        "end other programs there, or see `./doit fit:smoke`",
        "host mac4: has 1 MB of free disk, and needs 100 MB; make room there",
        "host mac4: its clock is 75 s behind this machine's; set it: `sudo sntp -sS time.apple.com` on a Mac",
        "host mac4: MLX_METAL_FAST_SYNCH=1 is set: it can stop the GPU for good; "
        "remove it from the shell's start files there",
        "host mac4: workers of an earlier run still run there: python -m thunder_train.worker (process 7, 8); "
        "end them: `ssh mac4 'kill 7 8'`",
    ] == told(
        recipe,
        mlx="0.31.1",
        mlx_lm=None,
        python="3.12.1",
        thunder_train="0.0.9",
        files={"m/model.safetensors": [5_000_000_000, "cc"]},
        code={"thunder_train/a.py": "1", "thunder_train/b.py": "9"},
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
    missing = {"has_project": False, "has_python": False, "files": {}, "code": {}, "mlx": None}

    assert ["host mac4: no project there: projects/thunder train is missing; run `./doit sync:smoke`"] == told(
        recipe, has_folder=False, **missing
    )
    assert [
        "host mac4: no project there: projects/thunder train holds no Thunder Train; run `./doit sync:smoke`"
    ] == told(recipe, **missing)


def test_a_host_without_its_interpreter_says_which(recipe: Recipe) -> None:
    """
    Versions of whatever python3 answered instead would mislead.
    """
    assert ["host mac4: projects/thunder train has no .venv/bin/python; run `./doit sync:smoke`"] == told(
        recipe, has_python=False, mlx=None
    )


def test_a_disk_must_hold_what_is_still_to_come(recipe: Recipe) -> None:
    """
    The model's gigabytes are not there yet, and sync would fill the disk.
    """
    files_there = {"data/d/train.jsonl": [9, "aa"]}

    assert "host mac4: has 5 GB of free disk, and needs 5.1 GB; make room there" in told(
        recipe, files=files_there, free_disk_bytes=5_000_000_000
    )


def test_ranks_of_one_host_share_its_memory(recipe: Recipe) -> None:
    """
    What is reckoned is right within a quarter, and a training that might fit is not refused.
    """
    host = Host("mac4", ("10.0.5.1",), ())
    shared = replace(recipe, cluster=macs("ring", host, host))
    needs = "its ranks need about 8 GB"

    assert [True, False] == [
        any(needs in one for one in told(shared, usable_memory_bytes=usable))
        for usable in (6_000_000_000, 7_000_000_000)
    ]


def test_a_host_needs_the_memory_of_its_own_ranks(recipe: Recipe) -> None:
    """
    A small Mac that takes an eighth of the rows need not hold what a large one holds.
    """
    assert [True, False] == [
        any("of memory" in one for one in told(recipe, host, usable_memory_bytes=3_000_000_000))
        for host in ("mac4", "mac5")
    ]
    assert 0 == preflight.memory_bytes("mac4", recipe.cluster, [])


def test_this_machine_needs_no_comparing(recipe: Recipe) -> None:
    """
    Its files are what the others are compared with, and its own workers are kept apart by doit's lock.
    """
    assert [] == told(recipe, "localhost", files={}, workers=[{"pid": 1, "command": "x"}])


def test_fast_synch_is_refused_in_the_cluster_too() -> None:
    """
    Apple's talk calls it critical; MLX's maintainers say leave it unset, for the GPU hangs until the next start.
    """
    bad = replace(macs(), envs=("A=1", "MLX_METAL_FAST_SYNCH=1"))

    assert ["thunder.toml: clusters.macs.envs: MLX_METAL_FAST_SYNCH can stop the GPU for good; remove it"] == [
        str(one) for one in preflight.environment_problems(bad)
    ]
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
                "needs Thunderbolt 5, macOS 26.2 and `rdma_ctl enable` in Recovery; or use ring"
            ],
        ),
        (
            "jaccl",
            None,
            [
                "host mac4: has no `ibv_devices`, so no RDMA; "
                "needs Thunderbolt 5, macOS 26.2 and `rdma_ctl enable` in Recovery; or use ring"
            ],
        ),
    ],
)
def test_rdma_devices_are_compared_with_the_matrix(backend: str, rdma: list[str] | None, expected: list[str]) -> None:
    """
    jaccl crashes when RDMA is enabled and there is no device, and waits for ever on a wrong one.
    """
    found = preflight.rdma_problems("mac4", {**FACTS, "rdma": rdma}, macs(backend))

    assert expected == [str(one) for one in found]


def test_what_is_wanted_follows_what_is_made(tmp_path: Path, recipe: Recipe) -> None:
    """
    A preflight may come before the dataset and the model; then there is nothing to compare yet.
    """
    assert [] == preflight.wanted(recipe, tmp_path)

    files.write_json(tmp_path / "data/agp-nko-corrections/manifest.json", {"splits": {"train": {"sha256": "aa"}}})
    lock = {"files": [{"path": "model.safetensors", "bytes": 5, "sha256": "bb"}]}
    files.write_json(tmp_path / "runs/models/nano/model.lock.json", lock)
    files.write_text(tmp_path / "runs/smoke/hostfile.json", "{}")

    assert [
        ("runs/smoke/hostfile.json", None),
        ("runs/models/nano/model.lock.json", None),
        ("data/agp-nko-corrections/train.jsonl", None),
        ("runs/models/nano/files/model.safetensors", 5),
    ] == [(each.path, each.bytes) for each in preflight.wanted(recipe, tmp_path)]


def test_a_hub_model_is_wanted_in_the_projects_own_cache(tmp_path: Path, recipe: Recipe) -> None:
    """
    At the commit that the lock pins.
    """
    hub = replace(recipe, model=replace(recipe.model, kind="hub", repo="o/n"))
    lock = {"commit": "c0", "files": [{"path": "config.json", "bytes": 5, "sha256": "bb"}]}
    files.write_json(tmp_path / "runs/models/nano/model.lock.json", lock)

    assert ".thunder/hub/models--o--n/snapshots/c0/config.json" == preflight.wanted(hub, tmp_path)[-1].path


def test_a_ring_needs_each_ranks_next_and_tells_of_the_rest() -> None:
    """
    With cables between neighbours alone, a Mac that reaches no other one is not broken.
    """
    hosts = [Host(f"mac{number}", (f"10.0.5.{number}",), ()) for number in (1, 2, 3)]
    found = links.ways(macs("ring", *hosts))

    assert 6 == len(found)
    assert [("mac1", "mac2"), ("mac2", "mac3"), ("mac3", "mac1")] == [
        (way.source, way.target) for way in found if way.is_needed
    ]


def test_other_backends_meet_at_rank_0() -> None:
    """
    jaccl's coordinator is there; its tensors go over RDMA.
    """
    hosts = [Host(f"mac{number}", (f"10.0.5.{number}",) if number == 1 else (), ()) for number in (1, 2, 3)]

    assert [Way("mac2", "mac1", "10.0.5.1", True), Way("mac3", "mac1", "10.0.5.1", True)] == links.ways(
        macs("jaccl", *hosts)
    )


def test_mpi_needs_every_way() -> None:
    """
    Who sends to whom in a sum is for Open MPI to choose.
    """
    hosts = [Host(f"mac{number}", (f"10.0.5.{number}",), ()) for number in (1, 2, 3)]

    assert [True] * 6 == [way.is_needed for way in links.ways(macs("mpi", *hosts))]


def test_ranks_of_one_host_are_no_link() -> None:
    """
    Each other host is measured once, however many ranks it has.
    """
    one, other = Host("mac4", ("10.0.5.1",), ()), Host("mac5", ("10.0.5.2",), ())

    assert [("mac4", "10.0.5.2", True), ("mac5", "10.0.5.1", True)] == [
        (way.source, way.address, way.is_needed) for way in links.ways(macs("ring", one, one, other))
    ]


def test_an_address_of_another_host_is_told_with_the_right_ones() -> None:
    """
    Addresses on Thunderbolt change when a Mac starts or a cable moves.
    """
    assert (
        "host mac4: 10.0.5.9 is no address of mac4; it has 10.0.5.1 (bridge0, Thunderbolt Bridge), "
        "192.168.1.4 (en0, Wi-Fi); correct ips in [clusters] of thunder.toml, or set the address there"
    ) == str(links.address_problem("mac4", "10.0.5.9", FACTS))


@pytest.mark.parametrize(
    ("source", "address", "expected"),
    [
        ("10.0.5.1", "10.0.5.2", True),  # from the address of [clusters]
        ("192.168.1.4", "10.0.5.2", False),  # by Wi-Fi and its router
        ("192.168.1.4", "192.168.1.9", True),  # a cable of its own, as in a ring of cables
        ("10.9.9.9", "10.0.5.2", False),  # an address that nobody knows
    ],
)
def test_a_connection_over_another_interface_is_seen(source: str, address: str, expected: bool) -> None:
    """
    It would train, at a third of the speed.
    """
    assert expected == links.is_training_link(source, Way("mac4", "mac5", address, True), macs(), FACTS)


def test_the_nearer_of_two_interfaces_in_one_network_is_the_wrong_one() -> None:
    """
    Wi-Fi and cable with addresses of the same network: the system takes either.
    """
    both = {**FACTS, "interfaces": [*INTERFACES, {"name": "en1", "kind": "Wi-Fi", "addresses": ["10.0.5.7/24"]}]}

    assert not links.is_training_link("10.0.5.7", Way("mac4", "mac5", "10.0.5.2", True), macs(), both)


def play_ssh(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a script named ssh first on PATH. Its last argument is the remote command."""
    (folder / "ssh").write_text(f"#!/bin/bash\nfor last; do :; done\n{script}\n")
    (folder / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def asked(where: Cluster) -> str:
    """What comes of asking mac4."""
    with client.opened(["mac4"], where) as sessions:
        try:
            return str(sessions["mac4"].ask(5, ask="listen", address="127.0.0.1")["port"] > 0)
        except ThunderError as error:
            return str(error)


def test_the_program_travels_with_the_question(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A host needs no project: a Python is enough. What its login scripts print is passed over.
    """
    play_ssh(tmp_path, f'cd {tmp_path}; echo "Welcome!"; eval "$last"', monkeypatch)

    assert "True" == asked(macs())


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        (
            "echo 'ssh: connect to host mac4 port 22: Connection refused' >&2; exit 255",
            "host mac4: ssh cannot reach it: ssh: connect to host mac4 port 22: Connection refused; "
            "make `ssh mac4 true` work without a password",
        ),
        (
            "echo 'Host key verification failed.' >&2; exit 255",
            "host mac4: ssh cannot reach it: Host key verification failed.; "
            "find out why its key changed; if rightly, `ssh-keygen -R mac4`, then `ssh mac4`",
        ),
        ("echo 'no python3' >&2; exit 127", "host mac4: has no Python; install Python 3.11 or newer there"),
        (
            "exit 3",
            "host mac4: the program that asks it ended: no message; see that Python 3.9 or newer is there",
        ),
    ],
)
def test_a_host_that_cannot_be_asked_says_why(
    script: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    One line with the host's name and what mends it.
    """
    play_ssh(tmp_path, script, monkeypatch)

    assert expected == asked(macs())


def test_a_host_that_never_answers_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A hung file system there must not hang the build.
    """
    play_ssh(tmp_path, "exec sleep 60", monkeypatch)
    with client.opened(["mac4"], macs()) as sessions, pytest.raises(ThunderError) as caught:
        sessions["mac4"].ask(0.2, ask="listen", address="127.0.0.1")

    assert (
        "host mac4: ssh cannot reach it: no answer within 0.2 s; make `ssh mac4 true` work without a password"
    ) == str(caught.value)


def test_folder_and_interpreter_reach_the_host_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    No shell string is ever built from config without quoting.
    """
    hostile = "a b; $(touch pwned) 'x'"
    play_ssh(tmp_path, f'cd {tmp_path}; printf "%s" "$last" > command; exit 3', monkeypatch)
    asked(replace(macs(), folder=hostile, python=hostile))
    play_ssh(tmp_path, f'cd {tmp_path}; eval "$last"', monkeypatch)

    assert "True" == asked(replace(macs(), folder=hostile, python=hostile))
    assert not (tmp_path / "pwned").exists()


def test_every_host_is_asked_and_every_problem_told(
    tmp_path: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    Mending one host at a time would cost a try per host.
    """
    play_ssh(tmp_path, "echo no route >&2; exit 255", monkeypatch)
    with pytest.raises(ThunderError) as caught:
        preflight.preflight(recipe, tmp_path / "logs")

    assert [
        "host mac4: ssh cannot reach it: no route; make `ssh mac4 true` work without a password",
        "host mac5: ssh cannot reach it: no route; make `ssh mac5 true` work without a password",
    ] == str(caught.value).splitlines()


@pytest.mark.ranks
def test_local_ranks_tell_their_size_and_their_sum(tmp_path: Path, recipe: Recipe) -> None:
    """
    The seed's ring smoke: size=2 from each rank, and the all-sum checked against known values.
    """
    host = Host("127.0.0.1", ("127.0.0.1",), ())
    local = replace(recipe, cluster=Cluster("local", "ring", (host, host), (), "", ""))
    found = preflight.preflight(local, tmp_path)

    assert [(0, 2, True), (1, 2, True)] == [(rank["rank"], rank["size"], rank["all_sum"]) for rank in found["ranks"]]
    assert all(rank["bytes_per_second"] > 0 for rank in found["ranks"])
    assert ("thunder.preflight/2", "ring", ["localhost"], []) == (
        found["schema"],
        found["backend"],
        [host["host"] for host in found["hosts"]],
        found["links"],
    )
    json.dumps(found, allow_nan=False)
