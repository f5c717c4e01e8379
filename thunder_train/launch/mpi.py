"""Backend mpi: Open MPI connects the ranks, and this launcher starts them as with every other backend.

mpirun starts placeholder processes (agent/mpi_holder.py) that report their environment and wait. The real ranks start
with these environments, so logs, heartbeats and restarts stay the launcher's.

mpirun runs on the first rank's machine. It would start a daemon on each other machine by ssh; this module starts them
instead, over a session with each machine. So hosts need no ssh to each other and no connection to here, only the
training link, and Open MPI receives nothing but the hosts' addresses.
"""

import concurrent.futures
import contextlib
import shlex
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from thunder_train import ThunderError, raise_all
from thunder_train.agent import client
from thunder_train.agent.client import Project, Session, UnreachableError
from thunder_train.config.project import is_local, machine_name

PARTS = (*client.PARTS, "mpi_holder")
"""Modules of agent/ that make the program of a session."""
START_TIMEOUT_S = 60.0
"""Seconds until every placeholder has reported."""
POLL_S = 0.05
MAC_PATH = ("/opt/homebrew/bin", "/usr/local/bin")
"""Where Open MPI may be on a Mac: over ssh its PATH lacks these folders."""
HINT = "install Open MPI (Debian: openmpi-bin, macOS: `brew install open-mpi`), or use backend ring"
LINK_HINT = "check that the hosts reach each other over the training link, on any port"
HOLDER = ("/bin/sh", "-c", 'exec "$THUNDER_MPI_PYTHON" -I -S "$THUNDER_MPI_PROGRAM" hold')
"""The command of a placeholder."""
AGENT = '/bin/sh -c exec\t"$THUNDER_MPI_PYTHON"\t-I\t-S\t"$THUNDER_MPI_PROGRAM"\tagent\t"$@" agent'
"""What Open MPI calls instead of ssh. It splits this text at spaces, hence the tabs; the last word becomes $0."""
DAEMONS = {
    **{f"{name}_ALLOW_RUN_AS_ROOT{more}": "1" for name in ("OMPI", "PRTE") for more in ("", "_CONFIRM")},
    "OMPI_MCA_plm": "rsh",
    "OMPI_MCA_plm_rsh_agent": AGENT,
    "OMPI_MCA_plm_rsh_no_tree_spawn": "1",
    "OMPI_MCA_plm_rsh_pass_environ_mca_params": "0",  # each machine gets its own settings from us
    "OMPI_MCA_orte_leave_session_attached": "1",
    "OMPI_MCA_routed": "direct",
    "OMPI_MCA_oob_tcp_retry_delay": "2",  # seconds, ten tries: a link back within half a minute costs no attempt
    "PRTE_MCA_plm": "ssh",
    "PRTE_MCA_plm_ssh_agent": AGENT,
    "PRTE_MCA_plm_ssh_no_tree_spawn": "1",
    "PRTE_MCA_oob_tcp_retry_delay": "2",
}
"""Environment of mpirun and the daemons. Open MPI 4 reads OMPI_..., Open MPI 5 PRTE_...."""

Host = dict[str, Any]
"""A host of the hostfile."""
Look = dict[str, Any]
"""What a machine has: paths of programs, version, interface of each address; see agent/mpi_holder.py."""


class LostError(ThunderError):
    """Open MPI did not connect the machines; another attempt may succeed."""


@dataclass(frozen=True)
class Machine:
    """Where ranks run. name: of its session; node: what Open MPI calls it; addresses: on the training link."""

    name: str
    node: str
    addresses: tuple[str, ...]


@contextlib.contextmanager
def places(
    hosts: list[Host], where: Project, is_stopped: Callable[[], bool] = lambda: False
) -> Iterator[list[dict[str, str]]]:
    """Yields one dict of environment variables per rank, valid inside the with block.

    Raises ThunderError if Open MPI is missing or does not start; LostError or UnreachableError if another attempt may
    succeed; LostError too as soon as is_stopped() is true.
    """
    machines = machines_of(hosts)
    with client.opened([each.name for each in machines], where, PARTS) as sessions:
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            started = pool.submit(_start, hosts, machines, sessions)
            while not concurrent.futures.wait([started], timeout=POLL_S).done:
                if is_stopped():
                    for each in sessions.values():
                        each.process.terminate()
                    raise LostError("was stopped", "Open MPI")
        yield started.result()


def machines_of(hosts: list[Host]) -> list[Machine]:
    """The distinct machines of all hosts, the first rank's first; a single machine needs no addresses."""
    ips: dict[str, dict[str, None]] = {}
    for host in hosts:
        ips.setdefault(machine_name(host["ssh"]), {}).update(dict.fromkeys(host["ips"]))
    if len(ips) == 1:
        return [Machine(name, "localhost", ()) for name in ips]
    return [
        Machine(name, next(iter(addresses)) if number else "localhost", tuple(addresses))
        for number, (name, addresses) in enumerate(ips.items())
    ]


def _start(hosts: list[Host], machines: list[Machine], sessions: dict[str, Session]) -> list[dict[str, str]]:
    """Start Open MPI on all machines; return each rank's environment variables."""
    looks = _looks(machines, sessions)
    raise_all(problems(machines, looks))
    links = {name: ",".join(dict.fromkeys(look["interfaces"].values())) for name, look in looks.items()}
    text = Path(__file__).parent.parent.joinpath("agent", "mpi_holder.py").read_text(encoding="utf-8")

    def start(name: str, program: str, flags: list[str]) -> None:
        settings = daemon_settings(links[name])
        sessions[name].ask(ask="start", program=program, flags=flags, settings=settings, text=text)

    nodes = {each.name: each.node for each in machines}
    names = [machine_name(host["ssh"]) for host in hosts]
    start(names[0], "mpirun", mpirun_flags([nodes[name] for name in names]))
    environments = _gathered(names, machines, sessions, start)
    return [
        {**environments[rank], **rank_settings(links[name]), "MLX_MPI_LIBNAME": looks[name]["libmpi"]}
        for rank, name in enumerate(names)
    ]


def _looks(machines: list[Machine], sessions: dict[str, Session]) -> dict[str, Look]:
    """What each machine has. An unreachable machine is reported only if nothing is wrong with the others."""
    addresses = {each.name: each.addresses for each in machines}

    def look(session: Session) -> Look:
        path = [] if is_local(session.host) else MAC_PATH
        return session.ask(ask="installed", addresses=addresses[session.host], path=path)

    errors: list[ThunderError] = []
    answers = client.attempts(sessions, look, errors)
    raise_all([error for error in errors if not isinstance(error, UnreachableError)])
    if errors:
        raise UnreachableError("\n".join(map(str, errors)))
    return answers


def problems(machines: list[Machine], looks: dict[str, Look]) -> list[ThunderError]:
    """Every reason why Open MPI cannot connect these machines."""
    errors = []
    for each in machines:
        look, is_here = looks[each.name], is_local(each.name)
        needed = ("mpirun", "libmpi") if len(machines) == 1 else ("mpirun", "orted", "libmpi")
        absent = [address for address in each.addresses if address not in look["interfaces"]]
        if missing := [name for name in needed if not look[name]]:
            where = missing[0] if is_here else f"host {each.name}: {missing[0]}"
            errors.append(ThunderError(f"is not installed {'here' if is_here else 'there'}", where, HINT))
        elif absent:
            what = f"{', '.join(absent)} is not an address of this host"
            errors.append(ThunderError(what, f"host {each.name}", "correct ips in [clusters]"))
    return errors or _version_problems({each.name: looks[each.name]["version"] for each in machines})


def _version_problems(versions: dict[str, str]) -> list[ThunderError]:
    first = next(iter(versions.values()))
    hint = "install the same Open MPI on all hosts"
    return [
        ThunderError(f"has Open MPI {version or '?'}, but rank 0's host has {first or '?'}", f"host {name}", hint)
        for name, version in versions.items()
        if version != first
    ]


def daemon_settings(links: str) -> dict[str, str]:
    """Environment of mpirun or a daemon. links: interfaces of the training link, "" for a single machine."""
    return {**DAEMONS, **({"OMPI_MCA_oob_tcp_if_include": links, "PRTE_MCA_prte_if_include": links} if links else {})}


def rank_settings(links: str) -> dict[str, str]:
    """Environment of a rank besides what mpirun gives it. links: as for daemon_settings.

    It allows shared memory and TCP alone, because other transports choose a network themselves.
    """
    if not links:
        return {"OMPI_MCA_pml": "ob1", "OMPI_MCA_btl": "self,vader"}
    return {
        "OMPI_MCA_pml": "ob1",
        "OMPI_MCA_btl": "self,vader,tcp",
        "OMPI_MCA_btl_tcp_if_include": links,
        "OMPI_MCA_oob_tcp_if_include": links,
    }


def mpirun_flags(nodes: list[str]) -> list[str]:
    """mpirun's flags: one placeholder per rank on its node. A part per rank keeps mpirun in the order of ranks."""
    parts = [["--host", node, "-n", "1", *HOLDER] for node in nodes]
    return ["--oversubscribe", "--bind-to", "none", *[word for part in parts for word in [*part, ":"]][:-1]]


def daemon(command: str) -> tuple[str, list[str]]:
    """The daemon and its flags in the shell command that Open MPI wants ssh to run; the daemon in the foreground.

    Open MPI 5 also passes settings on; those of daemon_settings are dropped, for they are of mpirun's machine. Raises
    ValueError for another command.
    """
    words = shlex.split(command)
    first = next((number for number, word in enumerate(words) if PurePath(word).name in ("orted", "prted")), -1)
    if first < 0:
        raise ValueError("no daemon")
    flags = words[first + 1 :]
    passed_on = [
        at
        for at, flag in enumerate(flags)
        if flag == "--prtemca" and f"PRTE_MCA_{''.join(flags[at + 1 : at + 2])}" in daemon_settings("-")
    ]
    for at in reversed(passed_on):
        del flags[at : at + 3]  # --prtemca NAME VALUE
    return PurePath(words[first]).name, [flag for flag in flags if flag != "--daemonize"]


def _gathered(
    ranks: list[str],
    machines: list[Machine],
    sessions: dict[str, Session],
    start: Callable[[str, str, list[str]], None],
) -> dict[int, dict[str, str]]:
    """{rank: its environment}, as soon as every placeholder has reported.

    ranks: the machine of each, which alone may report for it. start(machine, program, flags) starts a daemon.
    """
    names = {each.node: each.name for each in machines}
    environments: dict[int, dict[str, str]] = {}
    limit, running = time.monotonic() + START_TIMEOUT_S, [machines[0].name]
    while len(environments) < len(ranks):
        time.sleep(POLL_S)
        for name in tuple(running):
            news = sessions[name].ask(ask="news")
            for report in news["messages"]:
                if "rank" in report:
                    if report["rank"] >= len(ranks) or ranks[report["rank"]] != name:
                        raise _unexpected(name, f"rank {report['rank']}, which does not run there")
                    environments[report["rank"]] = report["environment"]
                else:  # mpirun wants a daemon on another machine
                    wanted = names.get(report["node"], running[0])
                    if wanted in running:
                        raise _unexpected(name, f"a daemon on {report['node']}, which needs none")
                    try:
                        program, flags = daemon(report["command"])
                    except ValueError:
                        raise _unexpected(name, "a command that starts no daemon") from None
                    running.append(wanted)
                    start(wanted, program, flags)
            if news["has_ended"] or time.monotonic() > limit:
                reason = news["output"] or f"no end within {START_TIMEOUT_S:g} s"
                raise _failure(name, f"did not start {len(ranks)} ranks: {reason}", len(machines) == 1)
    return environments


def _unexpected(name: str, what: str) -> ThunderError:
    return ThunderError(f"Open MPI asks for {what}", f"host {name}", client.CHECK_HOST)


def _failure(name: str, what: str, is_alone: bool) -> ThunderError:
    where = "mpirun" if is_local(name) else f"host {name}: Open MPI"
    return ThunderError(what, where, "check its installation") if is_alone else LostError(what, where, LINK_HINT)
