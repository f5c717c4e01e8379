"""The slice of a resolved recipe that each stage reads: all that a recipe says and that decides its outputs."""

from functools import cache
from typing import Any

from thunder_train.build.key import Reads
from thunder_train.config.project import Cluster, Recipe, deciding, section
from thunder_train.config.project import operational as how_it_runs


@cache
def whole(recipe: Recipe) -> Reads:
    """Every key."""
    return Reads(section(recipe))


@cache
def lasting(recipe: Recipe) -> Reads:
    """What a manifest holds of a recipe."""
    whole = deciding(recipe)
    facts = {"local": not recipe.cluster.is_remote, "tolerance": recipe.build.tolerance}
    left_out = ("file", "build", "report", recipe.unused)
    return Reads({**{name: whole[name] for name in whole if name not in left_out}, **facts})


@cache
def cluster(cluster: Cluster) -> Reads:
    """Where it trains."""
    return Reads(cluster=section(cluster))


@cache
def trained(recipe: Recipe) -> Reads:
    """What of it decides an adapter."""
    train = deciding(recipe.train)
    if recipe.train.start_from:  # its files are inputs, and by which name they are given changes no number
        train = {**train, "start_from": True}
    return Reads(train=train, cluster=_ranks(recipe.cluster, recipe.weights), **_chat(recipe))


@cache
def open_ended(recipe: Recipe) -> Reads | None:
    """`trained` without the number of steps, where more of them only go on; None where it changes every step."""
    if recipe.train.schedule != "constant" or recipe.train.warmup_ratio or recipe.train.epochs:
        return None
    reads = trained(recipe)
    return Reads({**reads, "train": {name: value for name, value in reads["train"].items() if name != "num_iters"}})


@cache
def evaluated(recipe: Recipe) -> Reads:
    """What of it decides predictions and scores."""
    ranks = _ranks(recipe.cluster, recipe.cluster.weights)
    train = {"max_seq_len": recipe.train.max_seq_len}
    return Reads(evaluate=deciding(recipe.evaluate), train=train, cluster=ranks, **_spelling(recipe), **_chat(recipe))


def _spelling(recipe: Recipe) -> dict[str, Any]:
    """{"dataset": the orthography}, whose gate accepts no answer that it refuses; nothing where there is none."""
    dataset = recipe.dataset
    if not dataset.orthography:
        return {}
    return {"dataset": {"orthography": dataset.orthography, "orthography_table": dataset.orthography_table}}


def _chat(recipe: Recipe) -> dict[str, Any]:
    """{"model": the keys that decide how messages become text}; nothing while none is set, as before there were any."""
    return {"model": recipe.model.chat} if recipe.model.chat else {}


def _ranks(cluster: Cluster, weights: tuple[float, ...]) -> dict[str, Any]:
    """What of a cluster can change a number."""
    variables = list(cluster.numeric_envs)
    return {"backend": cluster.backend, "ranks": len(cluster.hosts), "weights": list(weights), "envs": variables}


def operational(recipe: Recipe) -> dict[str, Any]:
    """How a training and an evaluation run."""
    parts = {name: how_it_runs(getattr(recipe, name)) for name in ("train", "evaluate", "build", "cluster")}
    hosts = [how_it_runs(host) for host in recipe.cluster.hosts]
    return {**parts, "cluster": {**parts["cluster"], "hosts": hosts}}
