"""Open MPI's flags, its commands for daemons, and machines that it cannot connect.

Open MPI itself runs in tests/agent/test_mpi_holder.py and tests/system/cluster/test_mpi.py.
"""

from typing import Any

import pytest

from thunder_train import ThunderError
from thunder_train.launch import mpi
from thunder_train.launch.mpi import HINT, HOLDER, Machine, daemon, machines_of, mpirun_flags, problems, rank_settings

FOUR = (
    ' orted -mca orte_leave_session_attached "1" -mca ess "env" -mca ess_base_jobid "306577408" -mca ess_base_vpid 1 '
    '-mca ess_base_num_procs "2" -mca orte_node_regex "host[1:1],[2:10].77.0.3@0(2)" -mca orte_hnp_uri '
    '"306577408.0;tcp://10.77.0.2:35597" -mca plm "rsh"'
)
FIVE = (
    "PRTE_PREFIX=/opt/mpi;export PRTE_PREFIX;LD_LIBRARY_PATH=/opt/mpi/lib:$LD_LIBRARY_PATH;export LD_LIBRARY_PATH;"
    '/opt/mpi/bin/prted --daemonize --allow-run-as-root --prtemca ess "env" --prtemca ess_base_vpid 1 '
    '--prtemca prte_hnp_uri "prterun-host1-24@0.0;tcp://10.77.0.2:52047:24" --prtemca plm "ssh" --prtemca '
    'plm_ssh_agent "/bin/sh -c exec\t"$THUNDER_MPI_PYTHON"\t-I\t-S\t"$THUNDER_MPI_PROGRAM"\tagent\t"$@" agent" '
    '--prtemca prte_if_include "link0" --prtemca pmix_session_server "1" --prtemca plm "ssh"'
)
"""Commands that Open MPI 4.1.4 and 5.0.11 gave to ssh, slightly shortened."""


def host(ssh: str, *ips: str) -> dict[str, Any]:
    """A host of a hostfile."""
    return {"ssh": ssh, "ips": list(ips), "rdma": []}


def look(*missing: str, version: str = "4.1") -> dict[str, Any]:
    """What a machine has, without some programs."""
    has = {name: None if name in missing else f"/usr/bin/{name}" for name in ("mpirun", "orted", "libmpi")}
    return {**has, "version": version, "interfaces": {"10.0.0.1": "en1", "10.0.0.2": "en2"}}


PAIR = [Machine("mac1", "localhost", ("10.0.0.1",)), Machine("mac2", "10.0.0.2", ("10.0.0.2",))]


def test_open_mpi_knows_each_machine_by_its_first_address() -> None:
    """
    No name of a configuration reaches Open MPI. The first rank's machine runs mpirun, which calls it localhost.
    """
    ranks = [host("mac1", "10.0.0.1"), host("::1", "10.0.0.2"), host("mac1", "10.0.1.1"), host("localhost", "10.0.0.2")]

    expected = [Machine("mac1", "localhost", ("10.0.0.1", "10.0.1.1")), Machine("localhost", "10.0.0.2", ("10.0.0.2",))]
    assert expected == machines_of(ranks)
    assert [Machine("mac1", "localhost", ())] == machines_of([host("mac1"), host("mac1", "10.0.0.1")])


def test_mpirun_starts_a_placeholder_for_each_rank_in_rank_order() -> None:
    """
    Open MPI's own order, by host, would swap the environments of two ranks.
    """
    one, other = (["--host", node, "-n", "1", *HOLDER] for node in ("localhost", "10.0.0.2"))

    expected = ["--oversubscribe", "--bind-to", "none", *one, ":", *other, ":", *one]
    assert expected == mpirun_flags(["localhost", "10.0.0.2", "localhost"])


def test_a_daemon_gets_its_own_flags_and_not_the_settings_of_mpiruns_machine() -> None:
    """
    Version 5 passes on the name of mpirun's interface, which may differ elsewhere; no shell reads any of the command.
    """
    program, flags = daemon(FOUR)

    assert ("orted", ["-mca", "orte_leave_session_attached", "1"]) == (program, flags[:3])
    assert ["orte_hnp_uri", "306577408.0;tcp://10.77.0.2:35597", "-mca", "plm", "rsh"] == flags[-5:]
    expected = {"ess": "env", "ess_base_vpid": "1", "prte_hnp_uri": "prterun-host1-24@0.0;tcp://10.77.0.2:52047:24"}
    kept = [word for pair in [*expected.items(), ("pmix_session_server", "1")] for word in ("--prtemca", *pair)]
    assert ("prted", ["--allow-run-as-root", *kept]) == daemon(FIVE)


def test_ranks_communicate_over_the_training_link_alone() -> None:
    """
    The interface's name, because 4.1 ignores an address with /32 and uses every network. One machine needs no TCP.
    """
    assert {"OMPI_MCA_pml": "ob1", "OMPI_MCA_btl": "self,vader"} == rank_settings("")
    assert {
        "OMPI_MCA_pml": "ob1",
        "OMPI_MCA_btl": "self,vader,tcp",
        "OMPI_MCA_btl_tcp_if_include": "en1,en2",
        "OMPI_MCA_oob_tcp_if_include": "en1,en2",
    } == rank_settings("en1,en2")


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (look(), look(), []),
        (
            look("mpirun", "orted", "libmpi"),
            look("libmpi"),
            [
                f"host mac1: mpirun: is not installed there; {HINT}",
                f"host mac2: libmpi: is not installed there; {HINT}",
            ],
        ),
        (
            look(),
            look() | {"interfaces": {}},
            ["host mac2: 10.0.0.2 is not an address of this host; correct ips in [clusters]"],
        ),
        (
            look(),
            look(version="5.0"),
            ["host mac2: has Open MPI 5.0, but rank 0's host has 4.1; install the same Open MPI on all hosts"],
        ),
        (
            look(),
            look(version=""),
            ["host mac2: has Open MPI ?, but rank 0's host has 4.1; install the same Open MPI on all hosts"],
        ),
    ],
)
def test_every_machine_that_cannot_be_connected_is_named(
    first: dict[str, Any], second: dict[str, Any], expected: list[str]
) -> None:
    """
    Open MPI itself would wait for it and blame a firewall.
    """
    assert expected == [str(each) for each in problems(PAIR, {"mac1": first, "mac2": second})]


def test_ranks_of_one_machine_need_no_daemon() -> None:
    """
    mpirun starts them itself.
    """
    assert [] == problems([Machine("localhost", "localhost", ())], {"localhost": look("orted", version="")})


class Told:
    """A session whose host has these messages."""

    def __init__(self, *messages: dict[str, Any]) -> None:
        self.messages = [*messages]

    def ask(self, **_: Any) -> dict[str, Any]:
        """Its news."""
        return {"messages": self.messages, "has_ended": False, "output": ""}


@pytest.mark.parametrize(
    ("message", "what"),
    [
        ({"rank": 1, "environment": {}}, "rank 1, which does not run there"),
        ({"rank": 7, "environment": {}}, "rank 7, which does not run there"),
        ({"node": "10.0.5.9", "command": FOUR}, "a daemon on 10.0.5.9, which needs none"),
        ({"node": "localhost", "command": FOUR}, "a daemon on localhost, which needs none"),
        ({"node": "10.0.5.2", "command": "sh -c 'touch pwned'"}, "a command that starts no daemon"),
        ({"node": "10.0.5.2", "command": "orted '"}, "a command that starts no daemon"),
    ],
)
def test_a_host_answers_for_its_own_ranks_alone(message: dict[str, Any], what: str) -> None:
    """
    What it reports becomes a process on another machine.
    """
    machines = [Machine("mac4", "localhost", ("10.0.5.1",)), Machine("mac5", "10.0.5.2", ("10.0.5.2",))]
    sessions: Any = {"mac4": Told(message), "mac5": Told()}

    with pytest.raises(ThunderError) as caught:
        mpi._gathered(["mac4", "mac5"], machines, sessions, lambda *_: None)

    assert f"host mac4: Open MPI asks for {what}; check that host" == str(caught.value)
