"""Launches over ssh to the hosts of a lab."""

import json
import shutil
import signal
import time
from pathlib import Path

import pytest

from tests.helpers.project_copy import Copy, wait_for
from tests.system.cluster.lab import Lab
from tests.system.cluster.machine import LINK, PROJECT_FOLDER, Machine
from tests.system.cluster.training import (
    ADAPTER,
    ENDLESS,
    RUN,
    adapter,
    finished,
    give,
    launch,
    local,
    reached,
    workers,
)

HOSTILE = "a b; $(touch pwned) 'x' \"y\" \\ `id`"
TOKEN = "hf_secret_word"  # noqa: S105
TELL = """
import json, os, sys, time
print(json.dumps([os.getcwd(), sys.argv[1:3], os.environ["A"], os.environ.get("HF_TOKEN", "")[::-1]]), flush=True)
time.sleep(float(sys.argv[3]))
"""
LOUD = "print(*range(100_000), sep='\\n', flush=True); print('the last line', flush=True)\n"


def module(it: Lab, name: str, text: str, folder: str = PROJECT_FOLDER) -> None:
    """Write a program into every host's project."""
    for host in it.hosts:
        (host.home / folder / f"{name}.py").write_text(text)


def listening(host: Machine) -> list[str]:
    """Addresses and ports on which processes of the host listen."""
    return host.run(["ss", "-Hltn"]).stdout.split()[3::5]


def test_two_hosts_make_the_adapter_of_two_local_ranks(two: Lab, smoke: Copy) -> None:
    """
    The hosts of the ranks change no bit. Rank 0's host has the adapter, head has only the logs.
    """
    give(two, smoke)
    status, out, err, _ = finished(launch(two))

    assert (0, "") == (status, err), out
    assert (smoke.path / ADAPTER).read_bytes() == adapter(two.hosts[0])
    assert "step 4/4" in out
    assert out == (two.head.project / RUN / "logs/rank-0.log").read_text()
    assert not (two.head.project / ADAPTER).exists()
    assert [] == workers(two)


@pytest.mark.slow
def test_four_hosts_and_two_with_two_ranks_each_make_the_adapter_of_four_local_ranks(four: Lab, smoke: Copy) -> None:
    """
    A host that is listed twice has two ranks, each with its own port.
    """
    rank = {"ssh": "127.0.0.1", "ips": ["127.0.0.1"], "rdma": []}
    (smoke.path / "four.json").write_text(json.dumps({"backend": "ring", "envs": [], "hosts": [rank] * 4}))
    expected = local(smoke, "--hostfile", "four.json")
    first, second, *_ = four.hosts
    for ranks in (four.hosts, [first, first, second, second]):
        give(four, smoke, ranks)
        status, _, err, _ = finished(launch(four))

        assert (0, "") == (status, err)
        assert expected == adapter(first)
        shutil.rmtree(first.project / RUN)


def test_the_head_may_be_a_rank_itself(two: Lab, smoke: Copy) -> None:
    """
    The README's first cluster: this Mac and another one.
    """
    give(two, smoke, [two.head, two.hosts[1]])
    hosts = two.head.project / RUN / "hosts.json"
    hosts.write_text(hosts.read_text().replace('"head"', '"localhost"'))
    status, _, err, _ = finished(launch(two))

    assert (0, "") == (status, err)
    assert (smoke.path / ADAPTER).read_bytes() == adapter(two.head)


def test_ctrl_c_lets_every_host_save_and_leaves_none_running(two: Lab, smoke: Copy) -> None:
    """
    ssh forwards no signal: a line on their stdin sends the ranks SIGTERM, and they write a checkpoint as local ones do.
    """
    give(two, smoke)
    process = launch(two, *ENDLESS)
    reached(two, 20)
    process.send_signal(signal.SIGINT)
    status, _, err, seconds = finished(process)

    assert (130, "ended by SIGINT; ending 2 ranks\n") == (status, err)
    assert [] == workers(two)
    assert 1 == len(list((two.hosts[0].project / RUN / "checkpoints").glob("*.safetensors")))
    assert seconds < 10


@pytest.mark.parametrize("joining", [False, True])
def test_kill_9_of_the_launcher_ends_every_rank(two: Lab, smoke: Copy, joining: bool) -> None:
    """
    A rank ends with its stdin, also while MLX searches for the others and lets no thread of the rank run.
    """
    give(two, smoke)
    if joining:
        two.hosts[1].link_down(LINK)
    process = launch(two, *ENDLESS)
    if joining:
        wait_for(lambda: 2 == len(workers(two)) and 3 <= len(listening(two.hosts[0])))  # sshd's two, and the ring's
        time.sleep(3)  # both search for each other and listen, on the training link only
        own = ("0.0.0.0:22", "[::]:22", two.hosts[0].address)
        assert [] == [each for each in listening(two.hosts[0]) if not each.startswith(own)]
    else:
        reached(two, 20)
    assert 2 == len(workers(two))
    process.kill()
    start_s = time.monotonic()
    wait_for(lambda: [] == workers(two))

    print(f"figure: kill -9 of the launcher, joining {joining}: {time.monotonic() - start_s:.1f} s")
    assert time.monotonic() - start_s < 3


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("", "no folder projects/thunder-train on this host; copy the project there"),
        (
            ".venv",
            "no .venv/bin/python in projects/thunder-train on this host; run ./doit list there, or correct `python`",
        ),
    ],
)
def test_a_host_without_the_project_says_so_and_is_not_tried_again(
    two: Lab, smoke: Copy, missing: str, message: str
) -> None:
    """
    mlx.launch carries on in the wrong folder.
    """
    give(two, smoke)
    path = two.hosts[1].project / missing
    path.rename(path.with_name("elsewhere"))
    status, _, err, _ = finished(launch(two, "--max-restarts", "3"))

    assert 2 == status
    assert err.startswith("rank 1 (host2): ended with exit status 2; last lines: ")
    assert err.endswith(f"{message}; read {RUN}/logs/rank-1.log\n")
    assert 1 == err.count("\n")


def test_a_host_with_another_key_is_not_talked_to(two: Lab, smoke: Copy) -> None:
    """
    It may be another machine, and would be sent the token.
    """
    give(two, smoke)
    known = two.head.home / ".ssh/known_hosts"
    first, second = known.read_text().splitlines()
    known.write_text(f"{first}\n{second.split()[0]} {first.split(' ', 1)[1]}\n")
    status, _, err, _ = finished(launch(two, "--max-restarts", "0"))

    assert 255 == status
    hint = "find out why its key changed; if rightly, `ssh-keygen -R host2`, then `ssh host2`"
    assert err.startswith(f"rank 1 (host2): ssh failed or lost its connection; {hint}; last lines: ")
    assert "Host key verification failed." in err
    wait_for(lambda: [] == workers(two), seconds=5)


def test_every_line_arrives(two: Lab, smoke: Copy) -> None:
    """
    The last lines of a rank that ends at once say why.
    """
    give(two, smoke)
    module(two, "loud", LOUD)
    status, _, err, _ = finished(launch(two, "--module", "loud"))

    expected = [*map(str, range(100_000)), "the last line"]
    assert (0, "") == (status, err)
    for rank in (0, 1):
        assert expected == (two.head.project / RUN / f"logs/rank-{rank}.log").read_text().splitlines()


def test_folder_environment_and_flags_arrive_letter_by_letter(two: Lab, smoke: Copy) -> None:
    """
    No shell reads a value of the configuration.
    """
    give(two, smoke)
    for host in two.hosts:
        host.project.rename(host.home / "projects" / HOSTILE)
    module(two, "tell", TELL, f"projects/{HOSTILE}")
    hosts = two.head.project / RUN / "hosts.json"
    hosts.write_text(json.dumps(json.loads(hosts.read_text()) | {"envs": [f"A={HOSTILE}"]}))
    argv = [".venv/bin/python", "-m", "thunder_train.launch", "--hostfile", f"{RUN}/hosts.json", "--log-dir", "logs"]
    argv += ["--folder", f"projects/{HOSTILE}", "--python", ".venv/bin/python", "--module", "tell"]
    done = two.head.run([*argv, HOSTILE, "'", "0"])

    assert (0, "") == (done.returncode, done.stderr)
    assert [f"/srv/home/projects/{HOSTILE}", [HOSTILE, "'"], HOSTILE, ""] == json.loads(done.stdout)
    assert [] == [path for machine in two.machines for path in machine.home.rglob("pwned")]


def test_a_name_that_ssh_could_take_for_an_option_is_refused(two: Lab, smoke: Copy) -> None:
    """
    -oProxyCommand= as the name of a host would run a command here.
    """
    give(two, smoke)
    hosts = two.head.project / RUN / "hosts.json"
    hosts.write_text(hosts.read_text().replace('"host2"', '"-oProxyCommand=touch pwned"'))
    status, _, err, _ = finished(launch(two))

    assert (2, False) == (status, (two.head.project / "pwned").exists())
    assert err.startswith(f"{RUN}/hosts.json: hosts[1].ssh: '-oProxyCommand=touch pwned' is not a host name for ssh")


def test_a_secret_reaches_the_ranks_and_no_log_file_or_command_line(two: Lab, smoke: Copy) -> None:
    """
    Every user of a machine may read command lines. The rank prints the token reversed, to prove that it has it.
    """
    give(two, smoke)
    module(two, "tell", TELL)
    hosts = two.head.project / RUN / "hosts.json"
    hosts.write_text(hosts.read_text().replace('"envs": []', '"envs": ["A=1"]'))
    argv = [".venv/bin/python", "-m", "thunder_train.launch", "--hostfile", f"{RUN}/hosts.json", "--log-dir", "logs"]
    argv += ["--folder", PROJECT_FOLDER, "--python", ".venv/bin/python", "--module", "tell", "a", "b", "2"]
    process = two.head.start(argv, {"HF_TOKEN": TOKEN})
    wait_for(lambda: 2 == len([pid for host in two.hosts for pid in host.pids("-m tell")]))
    lines = [Path(f"/proc/{pid}/cmdline").read_text() for machine in two.machines for pid in machine.pids()]
    status, out, _, _ = finished(process)

    assert (0, TOKEN[::-1]) == (status, json.loads(out)[3])
    assert [] == [line for line in lines if TOKEN in line]
    paths = [path for path in two.folder.rglob("*") if path.is_file() and not path.is_symlink()]
    assert [] == [path for path in paths if TOKEN.encode() in path.read_bytes()]
