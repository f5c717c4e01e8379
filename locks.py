"""`python -m locks [ARGUMENTS OF UV LOCK]`: write the locks of this project's packages, from pyproject.toml.

uv.lock is the source. From it come the files that pip and ./doit read: requirements.lock with what every user needs,
requirements-EXTRA.lock with an extra's packages besides, requirements-dev.lock with everything.
"""

import subprocess
import sys
import tomllib
from pathlib import Path

PROJECT = Path(__file__).resolve().parent
UV = [sys.executable, "-m", "uv", "--quiet"]
EXPORT = ["export", "--frozen", "--no-emit-project", "--no-header", "--no-annotate"]
BASE, DEVELOPERS = "requirements.lock", "requirements-dev.lock"


def options() -> dict[str, list[str]]:
    """{requirement file: the options of `uv export` that choose its packages}."""
    extras = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    return {
        BASE: ["--no-dev"],
        **{of_extra(name): ["--no-dev", "--extra", name] for name in sorted(extras)},
        DEVELOPERS: ["--all-extras"],
    }


def of_extra(name: str) -> str:
    """The requirement file of an extra."""
    return f"requirements-{name}.lock"


def exported(choice: list[str]) -> str:
    """A requirement file as uv.lock has it. Works without a network."""
    return subprocess.run(
        [*UV, "--offline", *EXPORT, *choice], cwd=PROJECT, stdout=subprocess.PIPE, text=True, check=True
    ).stdout


def main(arguments: list[str]) -> int:
    """Write all locks; uv's exit status."""
    try:
        subprocess.run([*UV, "lock", *arguments], cwd=PROJECT, check=True)
        for name, choice in options().items():
            (PROJECT / name).write_text(exported(choice))
    except subprocess.CalledProcessError as error:
        return error.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
