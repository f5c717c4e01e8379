"""Our real task graph with short work: the stages of a recipe write small files instead of training.

The benchmark copies it as dodo.py into a generated project, beside the real dodo.py as pipeline.py. Loader, stages,
checker, state and run cache are real, and so is the work of the dataset, the model and the scripts (of these only what
a template adds is compared, which a made-up text would not show). The content of a target depends on what the stage
reads, so a change propagates along the chain as in a real project.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from thunder_train.build import stage as build
from thunder_train.build.key import Stage
from thunder_train.build.run_cache import RunCache
from thunder_train.core import files

real_task = build.task


def short_task(stage: Stage, cache: RunCache) -> dict[str, Any]:
    """As build.task, but a stage of a recipe only writes its targets."""
    is_real = stage.name.partition(":")[0] in ("data", "model", "scripts")
    return real_task(stage if is_real else replace(stage, make=partial(write_targets, stage), after=None), cache)


def write_targets(stage: Stage, out: Path) -> None:
    """Write a hash of the stage's inputs into each target."""
    from thunder_train.pipeline import stages  # noqa: F401  (a real stage pays for this import, too)

    content = files.digest([stage.reads.digest, *(files.sha256(path) for path in stage.inputs)])
    for path in stage.targets:
        (out / path).write_text(f"{path} {content}\n")


build.task = short_task

from pipeline import *  # noqa: E402, F403  # after the change, because its task creators use build.task
