"""The prompt templates of a dataset: which values they get, and which they may ask for.

Input: hypothesis-side values of a row.  Output: the text of its user message.
"""

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thunder_train import ThunderError, raise_all
from thunder_train.config.dataset import PROMPTED, Dataset
from thunder_train.core import shipped, templates
from thunder_train.data import readers
from thunder_train.data.telemetry import Allowed, knows_reference

if TYPE_CHECKING:
    from jinja2 import nodes

HINT = "a prompt may use asr_text, hypotheses, partition and telemetry"


class Prompts:
    """The templates of a dataset. Raises ThunderError with everything that one of them asks for and no row may show."""

    def __init__(self, dataset: Dataset, root: Path) -> None:
        self._paths = dataset.templates
        texts = {path: readers.text(path, shipped.root_of(path, root)) for path in self._paths}
        self._templates = [templates.prompt(texts[path], path) for path in self._paths]
        allowed = [Allowed.of(source) for source in dataset.sources if source.kind in PROMPTED]
        raise_all([problem for path, text in texts.items() for problem in _problems(text, path, allowed)])
        self._contexts = [each.new_context(dict(each.globals), shared=True) for each in self._templates]

    def render(self, row_id: str, **values: Any) -> str:
        """The user message of a row. values: asr_text, hypotheses, partition, telemetry."""
        # By a checksum of the id, so that appended rows do not change the template of others.
        number = zlib.crc32(row_id.encode()) % len(self._templates)
        template, context = self._templates[number], self._contexts[number]
        context.parent.update(values)
        context.vars.clear()  # what the template itself has set for the row before
        context.exported_vars.clear()
        try:  # as template.render does, but with one context for all rows: a third of the time
            return "".join(template.root_render_func(context))
        except Exception as error:  # a template is the user's code and may raise anything
            raise ThunderError(f"row {row_id}: {error}", self._paths[number], HINT) from None


def _problems(text: str, path: str, allowed: list[Allowed]) -> Iterator[ThunderError]:
    """A problem for each member of telemetry that a template shows and no source lets through."""
    from jinja2 import nodes

    shown: dict[str, int] = {}
    for kind in (nodes.Getattr, nodes.Getitem, nodes.Call):
        for node in templates.environment(autoescape=False).parse(text).find_all(kind):
            name = _member(node)
            if name:
                shown.setdefault(name, node.lineno)
    for name, line in sorted(shown.items()):
        if any(each.allows(name) for each in allowed):
            continue
        what, where = f"shows telemetry.{name}", f"{path}:{line}"
        if any(map(knows_reference, name.split("."))):
            yield ThunderError(f"{what}, which knows the reference", where, "take it out")
        else:
            hint = f'if it is known without the reference, add telemetry = ["{name}"] to its source; else take it out'
            yield ThunderError(f"{what}, which no source lets prompts see", where, hint)


def _member(node: "nodes.Node") -> str:
    """The dotted name below telemetry that a node reads, or "" if it reads something else."""
    from jinja2 import nodes

    key: nodes.Node | None = None
    if isinstance(node, nodes.Call):
        called, arguments = node.node, node.args
        if isinstance(called, nodes.Getattr) and called.attr == "get" and arguments:
            key, node = arguments[0], called.node
    elif isinstance(node, nodes.Getattr):
        key, node = nodes.Const(node.attr), node.node
    elif isinstance(node, nodes.Getitem):
        key, node = node.arg, node.node
    if not isinstance(key, nodes.Const) or not isinstance(key.value, str) or hasattr(dict, key.value):
        return ""
    if isinstance(node, nodes.Name):
        return key.value if node.name == "telemetry" else ""
    above = _member(node)
    return f"{above}.{key.value}" if above else ""
