"""Scripts inside a page: one self-contained file, whose Content-Security-Policy allows this script and no other."""

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

from markupsafe import Markup

from thunder_train.core import files, shipped


def values(names: tuple[str, ...], root: Path = Path()) -> dict[str, Markup]:
    """{"script": the text of templates/<name> in their order, "script_hash": its hash for the policy}."""
    parts = [files.require(shipped.place(f"templates/{name}", root), hint="git checkout it") for name in names]
    script = '"use strict";\n' + "".join(part.read_text(encoding="utf-8") for part in parts)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return {
        "script": Markup(script),  # noqa: S704 - files of the project
        "script_hash": Markup(f"sha256-{digest}"),  # noqa: S704 - base64
    }


def as_json(value: Any) -> Markup:
    """JSON that is safe inside a script element: no string in it can end the element."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    for mark in "<>&\u2028\u2029":
        text = text.replace(mark, f"\\u{ord(mark):04x}")
    return Markup(text)  # noqa: S704 - its marks are escaped in the lines above
