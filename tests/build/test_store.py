"""Places for outputs: a folder, a bucket, a host: here a folder in which a script named ssh runs commands."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers.fake_hosts import Site
from thunder_train import ThunderError
from thunder_train.build import store
from thunder_train.core import extras

Place = Callable[[], store.Store]


@pytest.fixture(params=["folder", "ssh", "bucket"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> store.Store:
    """An empty store of each kind."""
    if request.param == "folder":
        return store.at(str(tmp_path / "a store"))
    if request.param == "ssh":
        site = Site(tmp_path)
        monkeypatch.setenv("PATH", f"{site.tools}:/usr/bin:/bin")
        return store.at("ssh://mac4/~/a store")
    monkeypatch.setitem(store.PACKAGES, "memory", "fsspec")  # fsspec's own stand-in for a bucket
    return store.at(f"memory://{tmp_path.name}/outputs")


def test_what_was_put_is_read_again(place: store.Store, tmp_path: Path) -> None:
    """
    Bytes of any value, names with folders; a second file of the same name replaces the first.
    """
    data = bytes(range(256)) * 5000
    file = tmp_path / "file"
    for content in (b"", data):
        file.write_bytes(content)
        place.put("blobs/ab/abcd", file)

    assert {"blobs/ab/abcd": len(data)} == place.sizes(["blobs/ab/abcd", "blobs/none"])
    assert data == b"".join(place.chunks("blobs/ab/abcd"))


def test_a_file_that_is_not_there_is_named_as_lost(place: store.Store, tmp_path: Path) -> None:
    """
    Somebody may have tidied the store between two looks.
    """
    with pytest.raises(ThunderError, match=r"has lost a file that it had|No such file"):
        b"".join(place.chunks("blobs/none"))


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("ftp://x/y", "ftp://x/y: is no address of a store; give a folder, ssh://host/folder, "),
        ("simplecache::s3://x", "simplecache::s3://x: is no address of a store; "),
        ("s3://key:word@bucket/x", "store: has a part that may be a secret, and no file of a project may hold one; "),
        ("s3://bucket/x?token=1", "store: has a part that may be a secret, and no file of a project may hold one; "),
        ("ssh://-oProxyCommand=x/y", "ssh://-oProxyCommand=x/y: is no host and folder; "),
        ("ssh://mac5:22/y", "ssh://mac5:22/y: is no host and folder; "),
        ("ssh://mac5/", "ssh://mac5/: is no host and folder; "),
        ("ssh://mac5/~/", "ssh://mac5/~/: is no host and folder; "),
    ],
)
def test_an_address_that_is_no_store_is_refused(address: str, message: str) -> None:
    """
    The address may come from a stranger's thunder.toml: it chooses no program and holds no secret.
    """
    with pytest.raises(ThunderError) as error:
        store.at(address)

    assert str(error.value).startswith(message)


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    fsspec opens a bucket only with the package for its kind.
    """
    for package in ("s3fs", "gcsfs"):
        monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setattr(extras, "command", lambda name: f"EXTRA={name} ./doit")

    with pytest.raises(ThunderError, match=r"s3://bucket/x: needs the package s3fs; run `EXTRA=s3 ./doit`"):
        store.at("s3://bucket/x")
    with pytest.raises(ThunderError, match=r"gs://bucket/x: needs the package gcsfs; run `.* -m pip install gcsfs`"):
        store.at("gs://bucket/x")


def test_a_host_that_is_away_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    With what ssh says, and the command that shows it again.
    """
    monkeypatch.setenv("PATH", f"{Site(tmp_path).tools}:/usr/bin:/bin")

    with pytest.raises(ThunderError) as error:
        store.at("ssh://mac9/~/store").sizes(["a"])

    assert (
        "ssh://mac9/~/store: cannot be reached: ssh: connect to host mac9 port 22: No route to host; "
        "make `ssh mac9 true` work without a prompt"
    ) == str(error.value)


def test_a_transfer_that_is_cut_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The host compares the length before the file gets its name.
    """
    site = Site(tmp_path)
    monkeypatch.setenv("PATH", f"{site.tools}:/usr/bin:/bin")
    command = ["sh", "-c", store.ENTER + store.PUT]
    done = subprocess.run(command, input=f"{tmp_path}/there\nblobs/a\n9\nhalf".encode(), check=False)

    assert 1 == done.returncode
    assert [] == [*(tmp_path / "there/blobs").iterdir()]


def test_a_read_only_folder_is_an_error_of_the_store(tmp_path: Path) -> None:
    """
    Not of the file that was to be sent.
    """
    (tmp_path / "store").write_text("no folder")
    (tmp_path / "file").write_text("x")

    with pytest.raises(ThunderError, match=f"^{tmp_path}/store: refuses: File exists; free or unlock it"):
        store.at(str(tmp_path / "store")).put("a", tmp_path / "file")
