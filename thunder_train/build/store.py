"""A place for outputs that other people reach: a folder, a host of ssh, or a bucket that fsspec opens, such as S3's.

It keeps files by name and hands them back. Nothing in it is believed: exchange.py compares sizes and hashes.
"""

import contextlib
import os
import shlex
import shutil
import subprocess
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import IO, Any, Protocol
from urllib.parse import urlsplit

from thunder_train import ThunderError
from thunder_train.core import extras, files, process, ssh
from thunder_train.core.exit_codes import SSH_FAILED
from thunder_train.core.text import printable

PACKAGES = {"s3": "s3fs", "gs": "gcsfs", "az": "adlfs"}
"""{kind of address: the package that fsspec needs for it}"""
FORMS = "give a folder, ssh://host/folder, " + " or ".join(f"{kind}://bucket/folder" for kind in PACKAGES)
CHUNK_BYTES = 1 << 20
ENTER = (
    'IFS= read -r folder; case $folder in "~/"*) folder=$HOME/${folder#"~/"} ;; esac; '
    'mkdir -p -- "$folder" && cd -- "$folder" || exit 1; '
)
LIST = 'while IFS= read -r name; do [ ! -f "$name" ] || printf "%s %s\\n" "$(wc -c <"$name")" "$name"; done'
PUT = (
    'IFS= read -r name; IFS= read -r size; mkdir -p -- "${name%/*}" && cat >"$name.$$" && '
    '[ "$(wc -c <"$name.$$")" -eq "$size" ] && mv -f -- "$name.$$" "$name" || { rm -f -- "$name.$$"; exit 1; }'
)
GET = 'IFS= read -r name; exec cat -- "$name"'
"""Programs of sh on a host. They are the same for all values: folder, names and contents come over stdin."""


class Store(Protocol):
    """Files by name, as `blobs/ab/abcd`. An error is a ThunderError that names the store."""

    def sizes(self, names: Collection[str]) -> dict[str, int]:
        """{name: bytes} of those that are there."""

    def put(self, name: str, file: Path) -> None:
        """Keep a file, whole or not at all."""

    def chunks(self, name: str) -> Iterator[bytes]:
        """The bytes of a file, in parts."""


def at(address: str) -> Store:
    """The store at an address. Raises ThunderError for one that cannot be a store."""
    kind, is_address, _ = address.partition("://")
    if not is_address:
        return FolderStore(Path(address).expanduser())
    parts = urlsplit(address)
    if kind != "ssh" and kind not in PACKAGES:
        raise ThunderError("is no address of a store", printable(address), FORMS)
    if parts.password is not None or parts.query or parts.fragment or (parts.username and kind != "ssh"):
        hint = "keep secrets where that service's own tools look for them, as in ~/.aws/credentials"
        raise ThunderError("has a part that may be a secret, and no file of a project may hold one", "store", hint)
    return SshStore(address) if kind == "ssh" else BucketStore(address, PACKAGES[kind])


class FolderStore:
    """A folder of this machine, or one that a server exports."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def sizes(self, names: Collection[str]) -> dict[str, int]:
        """{name: bytes} of those that are there."""
        with _refusals(str(self.folder)):
            return {name: (self.folder / name).stat().st_size for name in names if (self.folder / name).is_file()}

    def put(self, name: str, file: Path) -> None:
        """Copy a file, under another name first."""
        target = self.folder / name
        draft = target.with_name(f"{target.name}{files.DRAFT}{os.getpid()}")
        with _refusals(str(self.folder)):
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                with open(file, "rb") as reader, files.create(draft) as writer:
                    shutil.copyfileobj(reader, writer, CHUNK_BYTES)
                files.move(draft, target)
            finally:
                draft.unlink(missing_ok=True)

    def chunks(self, name: str) -> Iterator[bytes]:
        """The bytes of a plain file; no link is followed."""
        with _refusals(str(self.folder)), files.open_plain(self.folder / name) as reader:
            yield from _chunks(reader)


class BucketStore:
    """A bucket, by fsspec and the package for its kind."""

    def __init__(self, address: str, package: str) -> None:
        import fsspec.core  # late: few commands need it

        self.address = address.rstrip("/")
        try:
            with _refusals(self.address):
                self.system, self.root = fsspec.core.url_to_fs(self.address, use_listings_cache=False)
        except ImportError:
            kind = self.address.partition("://")[0]
            hint = extras.install([kind if kind in extras.NAMES else package])
            raise ThunderError(f"needs the package {package}", self.address, hint) from None

    def sizes(self, names: Collection[str]) -> dict[str, int]:
        """{name: bytes} of those that are there."""
        sizes = {}
        with _refusals(self.address):
            for name in names:
                with contextlib.suppress(FileNotFoundError):
                    sizes[name] = int(self.system.info(self._path(name))["size"])
        return sizes

    def put(self, name: str, file: Path) -> None:
        """Upload a file; an object is whole or not there."""
        with _refusals(self.address):
            self.system.put_file(str(file), self._path(name))

    def chunks(self, name: str) -> Iterator[bytes]:
        """The bytes of an object."""
        with _refusals(self.address), self.system.open(self._path(name), "rb") as reader:
            yield from _chunks(reader)

    def _path(self, name: str) -> str:
        return f"{self.root}/{name}"


class SshStore:
    """A folder on a host that `ssh HOST true` reaches without a question; /~/ begins one in its user's home."""

    def __init__(self, address: str) -> None:
        parts = urlsplit(address)
        self.address, self.host = printable(address), parts.netloc
        self.folder = parts.path.removeprefix("/") if parts.path.startswith("/~/") else parts.path
        is_host = self.host and ":" not in self.host and not self.host.startswith("-") and self.host.isprintable()
        if not is_host or self.folder.strip("/~") == "" or not self.folder.isprintable():
            hint = "write ssh://mac5/~/thunder-store; ports and keys belong into ~/.ssh/config"
            raise ThunderError("is no host and folder", self.address, hint)

    def sizes(self, names: Collection[str]) -> dict[str, int]:
        """{name: bytes} of those that are there."""
        with self._started(LIST) as child:
            answer, errors = child.communicate(self._words(*names))
            self._check(child, errors)
        pairs = (line.split(None, 1) for line in answer.decode(errors="replace").splitlines())
        return {pair[1]: int(pair[0]) for pair in pairs if len(pair) == 2 and pair[0].isdigit() and pair[1] in names}

    def put(self, name: str, file: Path) -> None:
        """Send a file. Its length is compared there before it gets its name."""
        with open(file, "rb") as reader, self._started(PUT) as child:
            with contextlib.suppress(BrokenPipeError):  # what the host answers says why
                child.stdin.write(self._words(name, str(os.fstat(reader.fileno()).st_size)))
                shutil.copyfileobj(reader, child.stdin, CHUNK_BYTES)
            _, errors = child.communicate()
            self._check(child, errors)

    def chunks(self, name: str) -> Iterator[bytes]:
        """The bytes of a file."""
        with self._started(GET) as child:
            with contextlib.suppress(BrokenPipeError):  # what the host answers says why
                child.stdin.write(self._words(name))
                child.stdin.close()
            yield from _chunks(child.stdout)
            self._check(child, child.stderr.read(CHUNK_BYTES))

    def _words(self, *words: str) -> bytes:
        return "".join(f"{word}\n" for word in (self.folder, *words)).encode()

    def _started(self, program: str) -> contextlib.AbstractContextManager[Any]:
        command = f"exec /bin/sh -c {shlex.quote(ENTER + program)}"
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        return process.started(ssh.argv(self.host, command), **pipes)

    def _check(self, child: "subprocess.Popen[bytes]", errors: bytes) -> None:
        status = child.wait()
        lines = printable(errors.decode(errors="replace").strip().rpartition("\n")[2])
        if status == SSH_FAILED:
            hint = f"make `ssh {self.host} true` work without a prompt"
            raise ThunderError(f"cannot be reached: {lines}", self.address, hint)
        if status:
            raise ThunderError(f"refuses: {lines or process.failure(status)}", self.address, "free or unlock it there")


def _chunks(reader: IO[bytes]) -> Iterator[bytes]:
    while chunk := reader.read(CHUNK_BYTES):
        yield chunk


@contextlib.contextmanager
def _refusals(where: str) -> Iterator[None]:
    """What a file system or a service refuses, as a ThunderError."""
    try:
        yield
    except (ThunderError, ImportError):
        raise
    except FileNotFoundError as error:
        raise ThunderError("has lost a file that it had", printable(where), "push it again") from error
    except Exception as error:  # each service's package has exceptions of its own
        what = printable(str(getattr(error, "strerror", None) or error))[:300]
        raise ThunderError(f"refuses: {what}", printable(where), "free or unlock it, or log in") from error
