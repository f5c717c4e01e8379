"""Recipes that are written in terms of others: `extends` takes the keys of another recipe, [sweep] makes several.

Works on the tables of recipes as TOML gives them, before they are checked. An error about a key names the file in which
its value was written.
"""

import copy
import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from thunder_train import ThunderError, raise_all
from thunder_train.config.validate import did_you_mean
from thunder_train.core.text import quoted

Table = dict[str, Any]
OWN = ("name", "description", "extends", "sweep")
"""Keys that belong to one recipe: no other takes them over, and no sweep sets them."""
MOST = 256
"""Most recipes that a sweep may make."""
UNSAFE = re.compile(r"[^A-Za-z0-9._+-]+")
"""What of a value cannot be a part of a folder's name."""
MARK = "@"


@dataclass(frozen=True)
class Written:
    """A recipe as its file has it. where: the file as users know it."""

    where: str
    table: Table
    stem: str

    @property
    def name(self) -> Any:
        """The name of its run."""
        return self.table.get("name", self.stem)


@dataclass(frozen=True)
class Experiment:
    """A recipe with the keys of those that it extends and the values of its sweep.

    name: "" for one that is named by its own keys. files: {key: the file in which it was written}, of keys of other
    files. swept: keys of [sweep].
    """

    written: Written
    table: Table
    name: str = ""
    files: Mapping[str, str] = field(default_factory=dict)
    swept: tuple[str, ...] = ()

    def place(self, problem: ThunderError) -> ThunderError:
        """A problem of this recipe, at the file and key where a person wrote the value."""
        where = self.written.where
        key = problem.where.removeprefix(f"{where}: ")
        if not problem.where.startswith(where) or key == problem.where:
            return problem
        if key in self.swept:
            return ThunderError(problem.what, f"{where}: sweep.{key}", problem.hint)
        writer = next((self.files[each] for each in _prefixes(key) if each in self.files), where)
        return ThunderError(problem.what, f"{writer}: {key}", problem.hint)


def experiments(one: Written, others: Mapping[str, Written]) -> list[Experiment]:
    """The recipes that a file makes: itself, or a member for each combination of its sweep's values.

    others: all recipes by name. Raises ThunderError with every problem of extends and sweep.
    """
    table, files = _extended(one, others, ())
    sweep = table.pop("sweep", None)
    if sweep is None:
        return [Experiment(one, table, files=files)]
    made = []
    for name, values in _members(one, sweep):
        member = copy.deepcopy(table)
        for key, value in values.items():
            _set(member, key, value, one.where)
        member.pop("name", None)
        made.append(Experiment(one, member, name, files, tuple(values)))
    return made


def _extended(one: Written, others: Mapping[str, Written], chain: tuple[str, ...]) -> tuple[Table, dict[str, str]]:
    """(a recipe's table over those that it extends, {key of another file: that file})."""
    table = copy.deepcopy(one.table)
    base = table.pop("extends", None)
    if base is None:
        return table, {}
    where, chain = f"{one.where}: extends", (*chain, str(one.name))
    if not isinstance(base, str):
        raise ThunderError(f"must be the name of a recipe, is {quoted(base)}", where, 'as extends = "base"')
    if base in chain:
        circle = " -> ".join([*chain, base])
        raise ThunderError(f"extends itself: {circle}", where, "take extends out of one of them")
    if base not in others:
        raise ThunderError(f"no recipe is named {quoted(base)}", where, did_you_mean(base, [*others]))
    parent, files = _extended(others[base], others, chain)
    for key in OWN:
        parent.pop(key, None)
    files = {key: files.get(key, others[base].where) for key in _keys(parent)}
    for key in _keys(table):
        for each in [each for each in files if each == key or each.startswith(f"{key}.")]:
            del files[each]
    return _merged(parent, table), files


def _merged(base: Table, own: Table) -> Table:
    """own over base, key by key; a list replaces a list."""
    both = {key: _merged(base[key], own[key]) for key in base.keys() & own.keys() if _are_tables(base[key], own[key])}
    return {**base, **own, **both}


def _are_tables(*values: Any) -> bool:
    return all(isinstance(value, dict) for value in values)


def _keys(table: Table, path: str = "") -> Iterator[str]:
    """Dotted names of the values in a table."""
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _keys(value, f"{path}{key}.")
        else:
            yield f"{path}{key}"


def _prefixes(key: str) -> list[str]:
    """`a.b`, then `a`: a key and the tables that it is in. An index of a list, as [0], belongs to the list."""
    parts = re.sub(r"\[\d+\].*", "", key).split(".")
    return [".".join(parts[:count]) for count in range(len(parts), 0, -1)]


def _members(one: Written, sweep: Any) -> Iterator[tuple[str, Table]]:
    """(name, {dotted key: value}) of each combination, the last key of the file varying fastest."""
    where = f"{one.where}: sweep"
    hint = 'as "train.learning_rate" = [1e-3, 3e-3]'
    if not isinstance(sweep, dict) or not sweep:
        raise ThunderError("must be a table of lists", where, hint)
    lists = dict(_lists(sweep))
    raise_all([problem for key, values in lists.items() for problem in _problems(key, values, where, hint)])
    count = 1
    for values in lists.values():
        count *= len(values)
    if count > MOST:
        raise ThunderError(f"makes {count:,} recipes", where, f"leave values out; {MOST} is the most")
    names: dict[str, tuple[Any, ...]] = {}
    for values in itertools.product(*lists.values()):
        name = f"{one.name}{MARK}{','.join(map(_word, values))}"
        if name in names:
            what = f"{quoted(names[name])} and {quoted(values)} would both be named {name!r}"
            raise ThunderError(what, where, "give values that differ in letters, digits, dots or dashes")
        names[name] = values
        yield name, dict(zip(lists, values, strict=True))


def _lists(sweep: Table, path: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in sweep.items():
        if isinstance(value, dict):
            yield from _lists(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", value


def _problems(key: str, values: Any, where: str, hint: str) -> Iterator[ThunderError]:
    place = f"{where}.{key}"
    if key.partition(".")[0] in OWN:
        yield ThunderError("is no key that a sweep can set", place, "take it out of [sweep]")
    elif not isinstance(values, list) or not values:
        yield ThunderError(f"must be a list of values, is {quoted(values)}", place, hint)
    else:
        for value in values:
            if not isinstance(value, bool | int | float | str):
                yield ThunderError(f"{quoted(value)} is no number, text, true or false", place, hint)


def _word(value: Any) -> str:
    """A value as a part of a name: 0.001, 16, true, q-proj."""
    if isinstance(value, bool):
        return str(value).lower()
    return UNSAFE.sub("-", str(value))


def _set(table: Table, key: str, value: Any, where: str) -> None:
    *tables, last = key.split(".")
    for name in tables:
        table = table.setdefault(name, {})
        if not isinstance(table, dict):
            raise ThunderError(f"{name!r} is no table", f"{where}: sweep.{key}", "correct the key")
    table[last] = value
