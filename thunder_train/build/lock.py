"""One process at a time changes a project: a build, and every command that writes.

The lock is on the project's folder itself, so that nobody can delete it or put another in its place, and on the file
.thunder/lock for file systems that lock no folders. The system drops both when the process ends, however it ends. The
file tells who holds them.
"""

import errno
import fcntl
import json
import os
import sys
from pathlib import Path

from thunder_train import ThunderError
from thunder_train.core import files

NAME = "lock"
VARIABLE = "THUNDER_BUILDS"
"""Tells a doit that this process starts which project it builds: it would wait for us, and we for it."""
WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EBADF)

_held: dict[str, list[int]] = {}
"""What this process holds, by the folder of states."""


def take(state: Path, waits: bool) -> bool:
    """Hold a project's lock until `release` or the end of this process. state: its folder .thunder.

    Whether another process had it meanwhile, so that everything read before must be read again. Raises ThunderError
    when another process has it and this one does not wait, and when the folder cannot be written.
    """
    key = os.path.realpath(state)
    if key in _held:
        return False
    try:
        state.mkdir(parents=True, exist_ok=True)
        file, has_waited = _take(state, waits)
        os.ftruncate(file[-1], 0)
        os.pwrite(file[-1], files.json_line({"process": os.getpid(), "command": _command()}).encode(), 0)
    except OSError as error:
        raise _refused(error, state) from None
    _held[key] = file
    os.environ[VARIABLE] = key
    return has_waited


def release(state: Path) -> None:
    """Let the next process in."""
    key = os.path.realpath(state)
    if key not in _held:
        return
    os.ftruncate(_held[key][-1], 0)
    for descriptor in _held.pop(key):
        os.close(descriptor)
    os.environ.pop(VARIABLE, None)


def is_held(state: Path) -> bool:
    """Whether this process holds the lock."""
    return os.path.realpath(state) in _held


def _take(state: Path, waits: bool) -> tuple[list[int], bool]:
    """Open and lock the folder and the file; the file comes last. Whether that took a wait."""
    has_waited = False
    while True:
        folder = os.open(state.parent, os.O_RDONLY)
        file = _open_file(state / NAME)
        try:
            for descriptor, may_fail in ((folder, True), (file, False)):
                has_waited |= _lock(descriptor, may_fail, waits, state)
            if os.path.samestat(os.fstat(file), os.stat(state / NAME)):
                return [folder, file], has_waited
        except FileNotFoundError:
            pass  # deleted meanwhile
        except BaseException:
            os.close(folder)
            os.close(file)
            raise
        os.close(folder)
        os.close(file)


def _open_file(path: Path) -> int:
    if os.path.lexists(path) and (path.is_symlink() or not path.is_file()):
        files.set_aside(path, "is no file")
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)


def _lock(descriptor: int, may_fail: bool, waits: bool, state: Path) -> bool:
    """Whether it took a wait. may_fail: whether a file system may lock no such thing."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return False
    except OSError as error:
        if error.errno in WITHOUT_LOCKS and may_fail:
            return False
        if error.errno != errno.EWOULDBLOCK:
            raise
    owner = f"another doit{_owner(state)}"
    if os.environ.get(VARIABLE) == os.path.realpath(state):
        hint = "a command that it runs cannot change the same project"
        raise ThunderError(f"{owner} builds here, and has started this one", str(state.parent.absolute()), hint)
    if not waits:
        raise ThunderError(f"{owner} builds here", str(state.parent.absolute()), "let it end, or end it")
    print(f"{owner} builds here; waiting for it to end", file=sys.stderr, flush=True)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    return True


def _owner(state: Path) -> str:
    """Who holds the lock, as far as the file tells."""
    try:
        with files.open_plain(state / NAME) as file:
            entry = json.loads(file.read(4096))
        return f" (process {int(entry['process'])}: {str(entry['command'])[:200]!r})"
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return ""


def _command() -> str:
    return " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])


def _refused(error: OSError, state: Path) -> ThunderError:
    where = str(error.filename or state)
    if error.errno in WITHOUT_LOCKS:
        hint = "keep the project on a local disk, or mount it with locks (of NFS: a lock daemon, or local_lock=flock)"
        return ThunderError("this file system has no locks, so two builds could not be kept apart", where, hint)
    return ThunderError(f"cannot be written: {error.strerror}", where, "make it writable, or build in a copy")
