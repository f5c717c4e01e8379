"""Open MPI between the ranks' machines: it makes places for the ranks, and the launcher's own processes take them.

A rank of MPI is whoever has the environment that Open MPI gave it. So it starts holders (worker/mpirun.py), which tell
that environment and wait, and the ranks are ours as with every other backend: logs, heartbeats, ends.

mpirun runs on the first rank's machine. The daemons that it would start by ssh are started from here, over a session
with each machine. So hosts need no way to each other but the training link, and none to here; and Open MPI is told of
hosts nothing but their addresses.
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
from thunder_train.config.project import is_local

PARTS = ("interfaces", "mpi_holder")
"""Modules of agent/ that make the program of a session."""
START_S = 60.0
"""Seconds that Open MPI may take to make the places."""
LOOK_EVERY_S = 0.05
SHORT_PATH = ("/opt/homebrew/bin", "/usr/local/bin")
"""Where Open MPI may lie on a Mac, whose PATH is short over ssh."""
HINT = "install Open MPI (Debian: openmpi-bin, macOS: `brew install open-mpi`), or use backend ring"
UNLINKED = "see that the hosts reach each other over the training link, on any port"
HOLDER = ("/bin/sh", "-c", 'exec "$THUNDER_MPI_PYTHON" -I -S "$THUNDER_MPI_PROGRAM" hold')
AGENT = '/bin/sh -c exec\t"$THUNDER_MPI_PYTHON"\t-I\t-S\t"$THUNDER_MPI_PROGRAM"\tagent\t"$@" agent'
"""In ssh's place. Open MPI cuts it at blanks, hence the tabs; the last word is $0."""
DAEMONS = {
    **{f"{name}_ALLOW_RUN_AS_ROOT{more}": "1" for name in ("OMPI", "PRTE") for more in ("", "_CONFIRM")},
    "OMPI_MCA_plm": "rsh",
    "OMPI_MCA_plm_rsh_agent": AGENT,
    "OMPI_MCA_plm_rsh_no_tree_spawn": "1",
    "OMPI_MCA_plm_rsh_pass_environ_mca_params": "0",  # each machine gets its own settings from us
    "OMPI_MCA_orte_leave_session_attached": "1",
    "OMPI_MCA_routed": "direct",
    "OMPI_MCA_oob_tcp_retry_delay": "2",  # ten times: a link that comes back within half a minute costs no attempt
    "PRTE_MCA_plm": "ssh",
    "PRTE_MCA_plm_ssh_agent": AGENT,
    "PRTE_MCA_plm_ssh_no_tree_spawn": "1",
    "PRTE_MCA_oob_tcp_retry_delay": "2",
}
"""Environment of mpirun and the daemons: Open MPI 4 reads OMPI_, 5 PRTE_."""
Host = dict[str, Any]
Look = dict[str, Any]


class LostError(ThunderError):
    """Open MPI did not come up between the machines. Another time it may."""


@dataclass(frozen=True)
class Machine:
    """Where ranks run. name: its session's; node: what Open MPI calls it; addresses: on the link between machines."""

    name: str
    node: str
    addresses: tuple[str, ...]


@contextlib.contextmanager
def places(
    hosts: list[Host], where: Project, is_stopped: Callable[[], bool] = lambda: False
) -> Iterator[list[dict[str, str]]]:
    """What the environment of each rank must hold; it is worth something until the end of the with block.

    Raises ThunderError when Open MPI is missing or does not start; LostError or UnreachableError when another try may
    do, LostError also when is_stopped said so.
    """
    machines = machines_of(hosts)
    with client.opened([each.name for each in machines], where, PARTS) as sessions:
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            started = pool.submit(_start, hosts, machines, sessions)
            while not concurrent.futures.wait([started], timeout=LOOK_EVERY_S).done:
                if is_stopped():
                    for each in sessions.values():
                        each.process.terminate()
                    raise LostError("was stopped", "Open MPI")
        yield started.result()


def machines_of(hosts: list[Host]) -> list[Machine]:
    """Each machine once, the first rank's first; a single one needs no addresses."""
    ips: dict[str, dict[str, None]] = {}
    for host in hosts:
        ips.setdefault(client.machine(host["ssh"]), {}).update(dict.fromkeys(host["ips"]))
    if len(ips) == 1:
        return [Machine(name, "localhost", ()) for name in ips]
    return [
        Machine(name, next(iter(own)) if number else "localhost", tuple(own))
        for number, (name, own) in enumerate(ips.items())
    ]


def _start(hosts: list[Host], machines: list[Machine], sessions: dict[str, Session]) -> list[dict[str, str]]:
    """Start Open MPI on all machines and gather the places that it makes."""
    looks = _looks(machines, sessions)
    raise_all(problems(machines, looks))
    links = {name: ",".join(dict.fromkeys(look["interfaces"].values())) for name, look in looks.items()}
    text = Path(__file__).parent.parent.joinpath("agent", "mpi_holder.py").read_text(encoding="utf-8")

    def start(name: str, program: str, flags: list[str]) -> None:
        settings = daemons_settings(links[name])
        _ask(sessions[name], ask="start", program=program, flags=flags, settings=settings, text=text)

    nodes = {each.name: each.node for each in machines}
    seats = [client.machine(host["ssh"]) for host in hosts]
    start(seats[0], "mpirun", mpirun_flags([nodes[seat] for seat in seats]))
    found = _gathered(len(seats), machines, sessions, start)
    return [
        {**found[rank], **ranks_settings(links[seat]), "MLX_MPI_LIBNAME": looks[seat]["libmpi"]}
        for rank, seat in enumerate(seats)
    ]


def _looks(machines: list[Machine], sessions: dict[str, Session]) -> dict[str, Look]:
    """What each machine has. One that cannot be reached is told only when nothing is wrong with the others."""
    addresses = {each.name: each.addresses for each in machines}

    def look(each: Session) -> Look:
        path = [] if is_local(each.host) else SHORT_PATH
        return _ask(each, ask="look", addresses=addresses[each.host], path=path)

    answers = client.together(sessions, look)
    bad = [answer for answer in answers.values() if isinstance(answer, ThunderError)]
    raise_all([each for each in bad if not isinstance(each, UnreachableError)])
    if bad:
        raise UnreachableError("\n".join(str(each) for each in bad))
    return answers


def _ask(each: Session, **question: Any) -> dict[str, Any]:
    answer = each.ask(**question)
    if "error" in answer:
        raise ThunderError(answer["error"], f"host {each.host}", "mend it there")
    return answer


def problems(machines: list[Machine], looks: dict[str, Look]) -> list[ThunderError]:
    """Everything for which Open MPI could not join these machines."""
    found = []
    for each in machines:
        look, here = looks[each.name], is_local(each.name)
        wanted = ("mpirun", "libmpi") if len(machines) == 1 else ("mpirun", "orted", "libmpi")
        absent = [address for address in each.addresses if address not in look["interfaces"]]
        if lacks := [name for name in wanted if not look[name]]:
            where = lacks[0] if here else f"host {each.name}: {lacks[0]}"
            found.append(ThunderError(f"is not installed {'here' if here else 'there'}", where, HINT))
        elif absent:
            what = f"{', '.join(absent)} is no address of this host"
            found.append(ThunderError(what, f"host {each.name}", "correct ips in [clusters]"))
    return found or _version_problems({each.name: looks[each.name]["version"] for each in machines})


def _version_problems(versions: dict[str, str]) -> list[ThunderError]:
    first = next(iter(versions.values()))
    hint = "install the same Open MPI on all hosts"
    return [
        ThunderError(f"has Open MPI {version or '?'}, and rank 0's host {first or '?'}", f"host {name}", hint)
        for name, version in versions.items()
        if version != first
    ]


def daemons_settings(links: str) -> dict[str, str]:
    """Environment of mpirun or a daemon. links: interfaces of the training link, "" when there is one machine."""
    return {**DAEMONS, **({"OMPI_MCA_oob_tcp_if_include": links, "PRTE_MCA_prte_if_include": links} if links else {})}


def ranks_settings(links: str) -> dict[str, str]:
    """What a rank must know beyond its place. links: as above.

    Nothing but shared memory and TCP, for other ways choose a network of their own.
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
    """A holder for each rank on its node, in the order of ranks."""
    one = [["--host", node, "-n", "1", *HOLDER] for node in nodes]
    return ["--oversubscribe", "--bind-to", "none", *[word for words in one for word in [*words, ":"]][:-1]]


def daemon(command: str) -> tuple[str, list[str]]:
    """The program and its flags in what Open MPI would have ssh's shell run.

    Without the settings of mpirun's machine, which 5 passes on, and in the foreground.
    """
    words = shlex.split(command)
    first = next(number for number, word in enumerate(words) if PurePath(word).name in ("orted", "prted"))
    flags = words[first + 1 :]
    ours = [
        at
        for at, word in enumerate(flags)
        if word == "--prtemca" and f"PRTE_MCA_{flags[at + 1]}" in daemons_settings("-")
    ]
    for at in reversed(ours):
        del flags[at : at + 3]
    return PurePath(words[first]).name, [flag for flag in flags if flag != "--daemonize"]


def _gathered(
    ranks: int, machines: list[Machine], sessions: dict[str, Session], start: Callable[[str, str, list[str]], None]
) -> dict[int, dict[str, str]]:
    """{rank: its environment}, once every rank has one. start: what starts a program on a machine."""
    names = {each.node: each.name for each in machines}
    found: dict[int, dict[str, str]] = {}
    limit, running = time.monotonic() + START_S, [machines[0].name]
    while len(found) < ranks:
        time.sleep(LOOK_EVERY_S)
        for name in tuple(running):
            news = _ask(sessions[name], ask="news")
            for told in news["told"]:
                if "rank" in told:
                    found[told["rank"]] = told["environment"]
                else:
                    running.append(names[told["node"]])
                    start(running[-1], *daemon(told["command"]))
            if news["has_ended"] or time.monotonic() > limit:
                words = news["words"] or f"no end within {START_S:g} s"
                raise _failure(name, f"did not start {ranks} ranks: {words}", len(machines) == 1)
    return found


def _failure(name: str, what: str, is_alone: bool) -> ThunderError:
    where = "mpirun" if is_local(name) else f"host {name}: Open MPI"
    return ThunderError(what, where, "mend Open MPI") if is_alone else LostError(what, where, UNLINKED)
