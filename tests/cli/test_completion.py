"""What bash completes after `source <(./doit tabcompletion)`, without the package bash-completion."""

import shutil
import subprocess

import pytest

from tests.helpers.project_copy import Copy

PROGRAM = """#!/bin/sh
[ "$*" = "list --all --quiet" ] && printf 'train         \\ntrain:smoke   \\ntrain:small   \\nindex   \\n'
"""


def completed(script: str, line: str, folder: str) -> list[str]:
    """The words that bash offers at the end of a line. A colon separates words, as is bash's default."""
    words = " ".join(f"'{word}'" for word in line.replace(":", " : ").split(" "))
    ask = f"""
COMP_LINE='{line}'; COMP_POINT=${{#COMP_LINE}}; COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
_doit; printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    done = subprocess.run(
        ["bash", "--noprofile", "--norc", "-c", script + ask], cwd=folder, capture_output=True, text=True, check=True
    )
    assert "" == done.stderr
    return [word for word in done.stdout.splitlines() if word]


@pytest.mark.ranks
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("./doit tra", ["train", "train:smoke", "train:small"]),
        ("./doit train:sm", ["smoke", "small"]),
        ("./doit st", ["status", "strace"]),
        ("./doit help wh", ["why"]),
        ("./doit why st", []),
        ("./doit why train:smok", ["smoke"]),
    ],
)
def test_bash_completes_commands_and_tasks_of_the_doit_that_is_typed(
    fresh: Copy, line: str, expected: list[str]
) -> None:
    """
    doit's own script calls a program `doit` on the PATH, which there is not.
    """
    (fresh.path / "doit").write_text(PROGRAM)
    (fresh.path / "doit").chmod(0o755)
    script = fresh.doit("tabcompletion").output

    assert "complete -o default -F _doit doit\n" in script
    assert expected == completed(script, line, str(fresh.path))


@pytest.mark.ranks
def test_names_may_be_written_into_the_script(fresh: Copy) -> None:
    """
    `--hardcode-tasks`, for a project that starts slowly.
    """
    script = fresh.doit("tabcompletion", "--hardcode-tasks").output

    assert ["train:smoke"] == [word for word in completed(script, "./doit train", str(fresh.path)) if "smoke" in word]


@pytest.mark.ranks
def test_zsh_gets_a_script_that_it_can_parse(fresh: Copy) -> None:
    """
    Sourced or put on fpath.
    """
    script = fresh.doit("tabcompletion", "--shell", "zsh").output

    assert script.startswith("#compdef doit\n")
    assert "$tasks" not in script
    if shutil.which("zsh"):
        subprocess.run(["zsh", "-n", "-c", script], check=True)
