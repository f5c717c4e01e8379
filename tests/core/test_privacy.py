"""Texts of the system behind which a setting of macOS may stand. Untested on a Mac."""

import errno
import os

import pytest

from thunder_train import ThunderError
from thunder_train.core import files, privacy


def test_an_unreachable_neighbour_may_be_a_missing_permission() -> None:
    """
    macOS 15 and newer say EHOSTUNREACH, and name no permission, to a terminal other than Terminal.app.
    """
    message = "ssh: connect to host mac4 port 22: No route to host"

    assert privacy.hint(message, is_mac=True).endswith("or use Terminal.app, which needs no permission")
    assert privacy.LOCAL_NETWORK == privacy.hint("[ring] Couldn't connect (error: 65)", is_mac=True)
    assert "" == privacy.hint(message, is_mac=False)
    assert "" == privacy.hint("ssh: connect to host mac4 port 22: Connection refused", is_mac=True)


def test_texts_are_those_of_the_system() -> None:
    """
    Linux and macOS word both errors alike; their numbers differ.
    """
    assert [privacy.NO_ROUTE, privacy.NOT_PERMITTED] == [os.strerror(errno.EHOSTUNREACH), os.strerror(errno.EPERM)]


@pytest.mark.parametrize(("is_mac", "expected"), [(True, privacy.PROTECTED), (False, "see there")])
def test_a_protected_folder_is_named_as_one(is_mac: bool, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    In ~/Documents a file that its owner may read "cannot be read", and chmod does not help.
    """

    def refuse(path: str, *_: object) -> str:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), path)

    monkeypatch.setattr(files, "read_text", refuse)
    monkeypatch.setattr(privacy.hint, "__defaults__", (is_mac,))

    with pytest.raises(ThunderError) as raised:
        files.read_json("Documents/a.json", hint="see there")

    assert f"Documents/a.json: cannot be read: Operation not permitted; {expected}" == str(raised.value)
