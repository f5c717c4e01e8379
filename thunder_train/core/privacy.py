"""Errors that a privacy setting of macOS may have caused, and what to do. Untested on a Mac."""

import sys

NO_ROUTE, NOT_PERMITTED = "No route to host", "Operation not permitted"
"""Texts of EHOSTUNREACH (65 on macOS) and EPERM."""
NO_ROUTE_OF_MLX = "Couldn't connect (error: 65)"
"""How MLX's ring says EHOSTUNREACH on macOS."""
LOCAL_NETWORK = (
    "if the other machine is on: allow this terminal in System Settings > Privacy & Security > Local Network, "
    "or use Terminal.app, which needs no permission"
)
PROTECTED = (
    "macOS protects Documents, Desktop and Downloads: move the project to a plain folder such as ~/thunder, or allow "
    "Full Disk Access to the terminal (on a host: to remote users, in Remote Login)"
)


def hint(message: str, is_mac: bool = sys.platform == "darwin") -> str:
    """What to do about a system's message that a setting of macOS may have caused, else "". Untested on a Mac.

    is_mac: whether the machine that says it is a Mac. What sshd started needs no permission for the local network: ask
    about NO_ROUTE only where the connection began on this machine.
    """
    hints = {NO_ROUTE: LOCAL_NETWORK, NO_ROUTE_OF_MLX: LOCAL_NETWORK, NOT_PERMITTED: PROTECTED}
    return next((each for text, each in hints.items() if is_mac and text in message), "")
