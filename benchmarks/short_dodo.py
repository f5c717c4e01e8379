"""The project's own graph with short work: every stage of a recipe writes small files instead of training.

Lies as dodo.py in a generated project, beside the real one as pipeline.py. Loader, stages, checker, state and run cache
are real, and so are the stages of the dataset and the model. What a stage writes follows from what it reads, so that a
change goes down the chain as a real one would.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from thunder_train.core import files
from thunder_train.pipeline import graph

real_stages = graph._stages


class ShortStages:
    """As the module that graph._stages imports, which is imported all the same: a real stage pays for it."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        """The function of a stage."""
        real = getattr(real_stages(), name)
        if name in ("data", "model"):
            return real

        def work(recipe: Any, out: Path, *_: Any, **__: Any) -> None:
            stage = getattr(graph, name)(recipe)
            read = files.digest([stage.reads, *(files.sha256(path) for path in stage.inputs)])
            for path in stage.targets:
                (out / path).write_text(f"{path} {read}\n")

        return work


graph._stages = ShortStages

from pipeline import *  # noqa: E402, F403  # after the change, which its task creators take over
