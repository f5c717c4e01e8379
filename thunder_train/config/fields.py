"""How schema.py writes a key down: kind, bounds, unit, meaning; and what texts must look like, in words."""

from typing import Any

Table = dict[str, dict[str, Any]]

NAME = r"^[A-Za-z0-9](?!.*\.\.)[A-Za-z0-9._-]{0,63}$"
"""Names become folder names: no slash, no "..", no leading dot or dash."""

SSH_NAME = r"^[A-Za-z0-9_][A-Za-z0-9_.@-]*$"
ADDRESS = r"^[0-9A-Za-z][0-9A-Za-z.:-]*$"
VARIABLE = r"^[A-Za-z_][A-Za-z0-9_]*=.*$"
REPO = r"^$|^[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*$"
REVISION = r"^[A-Za-z0-9](?!.*\.\.)[A-Za-z0-9._/-]*$"
LAYER = r"^[A-Za-z0-9_.]+$"

FORMS = {
    NAME: "use letters, digits, . _ - and begin with a letter or digit",
    SSH_NAME: "use the name of the host in ~/.ssh/config, or user@host",
    ADDRESS: "give an address as 10.0.5.1",
    VARIABLE: "write it as NAME=value",
    REPO: "write it as owner/name",
    REVISION: "give a branch, a tag or a commit",
    LAYER: "give a layer's name as self_attn.q_proj",
}
"""What a text must look like, in words, by its pattern."""


def text(meaning: str, **rules: Any) -> dict[str, Any]:
    """A text."""
    return {"type": "string", "meta": {"help": meaning}, **rules}


def whole(meaning: str, unit: str, low: int, high: int, **rules: Any) -> dict[str, Any]:
    """A whole number from low to high."""
    return {"type": "integer", "min": low, "max": high, "meta": {"help": meaning, "unit": unit}, **rules}


def real(meaning: str, unit: str, low: float, high: float, **rules: Any) -> dict[str, Any]:
    """A finite number from low to high."""
    meta = {"help": meaning, "unit": unit}
    return {"type": "number", "min": low, "max": high, "check_with": "finite", "meta": meta, **rules}


def texts(meaning: str, **rules: Any) -> dict[str, Any]:
    """A list of texts."""
    return {"type": "list", "schema": {"type": "string"}, "meta": {"help": meaning}, **rules}


def switch(meaning: str, **rules: Any) -> dict[str, Any]:
    """true or false."""
    return {"type": "boolean", "meta": {"help": meaning}, **rules}
