"""Hosts: which are local, and the one place that speaks ssh."""

import shlex

LOCAL = ("localhost", "127.0.0.1", "::1")


def is_local(host: str) -> bool:
    """Whether a host of a hostfile is this machine."""
    return host in LOCAL


def argv_on(host: str, argv: list[str], env: dict[str, str], folder: str) -> list[str]:
    """The command that runs argv on a host: argv itself here, an ssh command line elsewhere.

    env and folder hold on the remote side; every value is quoted, for a hostile one must stay a value.
    """
    if is_local(host):
        return argv
    variables = [f"{name}={value}" for name, value in sorted(env.items())]
    remote = f"cd {shlex.quote(folder)} && exec env {shlex.join([*variables, *argv])}"
    options = ["BatchMode=yes", "ConnectTimeout=10", "ForwardAgent=no", "ServerAliveInterval=10"]
    return ["ssh", *(part for option in options for part in ("-o", option)), "--", host, remote]
