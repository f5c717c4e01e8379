"""Entry points of the wheel: the plugins that this repository's own doit has from pyproject.toml, for every doit."""

import tomllib
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface


class EntryPoints(MetadataHookInterface):
    """[tool.doit.plugins] as groups of entry points, such as doit.COMMAND."""

    PLUGIN_NAME = "custom"

    def update(self, metadata: dict[str, Any]) -> None:
        """Add the groups to the metadata of the project."""
        project = tomllib.loads((Path(self.root) / "pyproject.toml").read_text(encoding="utf-8"))
        plugins = project["tool"]["doit"]["plugins"]
        metadata["entry-points"] = {f"doit.{kind.upper()}": names for kind, names in plugins.items()}
