"""Login shells of hosts: whichever a user has, the same commands arrive. ssh is a script that starts the shell."""

import os
import shutil
from pathlib import Path

import pytest

from tests.agent.test_client import PLACE, asked, play_ssh
from thunder_train import ThunderError
from thunder_train.agent import client
from thunder_train.cluster import sync, transfer

SHELLS = ["sh", "dash", "bash", "zsh", "fish", "tcsh", "csh"]
START_FILES = {
    "bash": (".bash_profile", "PATH=$HOME/tools:$PATH"),
    "fish": (".config/fish/config.fish", "set -x PATH $HOME/tools $PATH"),
    "tcsh": (".tcshrc", "setenv PATH $HOME/tools:$PATH"),
    "csh": (".cshrc", "setenv PATH $HOME/tools:$PATH"),
    "zsh": (".zprofile", "PATH=$HOME/tools:$PATH"),
}
"""Where a user of each shell sets the PATH, as Homebrew's installer says."""
OTHERS = (".profile", "PATH=$HOME/tools:$PATH")


@pytest.fixture(params=SHELLS)
def home(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host's home folder, whose user has this login shell and a PATH with the folder tools."""
    shell = shutil.which(request.param)
    if not shell:
        pytest.skip(f"{request.param} is not installed")
    name, text = START_FILES.get(request.param, OTHERS)
    home = tmp_path / "home"
    for folder in (home / "tools", (home / name).parent, home / PLACE.folder):
        folder.mkdir(parents=True, exist_ok=True)
    (home / name).write_text(f"{text}\n")
    path = f"{tmp_path}:{os.environ['PATH']}"
    start = f'cd "{home}" && exec env HOME="{home}" SHELL={shell} {shell} -c "$last"'
    play_ssh(tmp_path, start, monkeypatch)
    monkeypatch.setenv("PATH", path)
    return home


def test_a_host_is_asked_through_any_login_shell(home: Path) -> None:
    """
    fish and tcsh reject what sh reads, ${name:-value} for instance.
    """
    assert "True" == asked(PLACE)


def test_a_command_gets_the_users_path_and_arrives_as_it_is(home: Path) -> None:
    """
    Homebrew's Python is on the PATH by a start file of the login shell alone; quotes, $ and ! are for sh.
    """
    tool = home / "tools/thunder-tool"
    tool.write_text('#!/bin/sh\nprintf "%s|" "$@" >"$OUT"\n')
    tool.chmod(0o755)
    command = "OUT=\"$PWD/out\" thunder-tool 'a  b' \"$HOME\" '!x' 'it''s' '$y' \"${none:-c}\" '`d`' '\\'"
    with client.opened(["mac4"], PLACE) as sessions:
        transfer.run(sessions["mac4"], PLACE.folder, command, 30)

    assert f"a  b|{home}|!x|its|$y|c|`d`|\\|" == (home / PLACE.folder / "out").read_text()


def test_the_environment_is_made_with_places_inside_the_project(home: Path) -> None:
    """
    The real command of sync; ./doit is a script that prints what it was given.
    """
    doit = home / PLACE.folder / "doit"
    doit.write_text('#!/bin/sh\nprintf "%s\\n" "$PYTHON" "$PIP_CACHE_DIR" "$UV_CACHE_DIR" "$@"; exit 3\n')
    doit.chmod(0o755)
    project = home / PLACE.folder
    with client.opened(["mac4"], PLACE) as sessions, pytest.raises(ThunderError) as raised:
        transfer.run(sessions["mac4"], PLACE.folder, sync.MAKE_ENVIRONMENT, 30)

    assert raised.value.what.endswith(f" failed: {project}/.thunder/pip | {project}/.thunder/uv | --version")
