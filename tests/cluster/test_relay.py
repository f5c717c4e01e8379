"""Which host gives large files to which; the transfer itself is in worker/test_relay.py and tests/cluster."""

import pytest

from thunder_train.cluster import relay
from thunder_train.config.project import Cluster, Host

BIG = {"model.safetensors": 80 << 20, "config.json": 900}


def cluster(*names: str, ips: bool = True) -> Cluster:
    """A ring of these hosts."""
    hosts = tuple(Host(name, (f"10.0.5.{number}",) if ips else (), ()) for number, name in enumerate(names, start=1))
    return Cluster("macs", "ring", hosts, (), "thunder-train", ".venv/bin/python")


def test_few_or_small_files_are_not_worth_a_link() -> None:
    """
    To measure two ways takes as long as to send them.
    """
    assert ["model.safetensors"] == relay.large(BIG)
    assert [] == relay.large({"a": 60 << 20, "config.json": 900})
    assert [] == relay.large({f"{number}.py": 1 << 19 for number in range(1000)})


@pytest.mark.parametrize(
    ("names", "missing", "takers", "givers"),
    [
        (["a", "b", "c"], {"c": BIG, "a": BIG, "b": BIG}, ["a", "b", "c"], set()),
        (["a", "b"], {"a": {}, "b": BIG}, ["b"], {"a"}),
        (["localhost", "b"], {"b": BIG}, ["b"], {"localhost"}),
        (["a"], {"a": BIG}, [], set()),
        (["a", "b"], {"b": BIG}, [], set()),  # a did not answer: nobody could give
        (["a", "b", "c"], {"b": BIG, "c": {"x": 1}}, ["b"], {"c"}),
        (["a", "b", "c"], {"c": BIG, "b": BIG, "a": {"x": 60 << 20}}, ["b", "c"], {"a"}),
    ],
)
def test_who_lacks_much_takes_it_from_who_has_it(
    names: list[str], missing: dict[str, dict[str, int]], takers: list[str], givers: set[str]
) -> None:
    """
    In order of ranks. This machine gives too, if it is a rank; a host that did not answer is asked for nothing.
    """
    whole = [host for host, sizes in missing.items() if not relay.large(sizes)]

    assert (takers, givers) == (relay.takers(cluster(*names), missing), relay.givers(cluster(*names), whole))


def test_without_an_address_on_the_link_nobody_gives() -> None:
    """
    Backends other than the ring need none; who would listen on none would listen on all.
    """
    assert set() == relay.givers(cluster("a", "b", ips=False), ["a"])
    assert [] == relay.takers(cluster("a", "b", ips=False), {"a": {}, "b": BIG})


def test_the_nearest_rank_gives() -> None:
    """
    Cables may join neighbours alone, the last with the first.
    """
    five = cluster("a", "b", "c", "d", "e")

    assert ["e", "b", "a", ""] == [
        relay.nearest(five, target, machines)
        for target, machines in (("a", {"c", "e"}), ("a", {"b", "e"}), ("b", {"a", "d"}), ("a", set()))
    ]
