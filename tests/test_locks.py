"""The locks of all packages: uv.lock is the source, and the requirement files that pip and ./doit read come from it."""

import importlib.util
import re
import sys
import tomllib
from importlib import metadata
from itertools import product

import pytest
from packaging import tags
from packaging.markers import Marker
from packaging.utils import canonicalize_name, parse_wheel_filename

import locks
from tests.helpers.project_copy import PROJECT
from tests.test_architecture import imports

FILES = sorted(locks.options())
PLATFORMS = {
    "linux-x86_64": ["manylinux1_x86_64", "manylinux2014_x86_64", *(f"manylinux_2_{n}_x86_64" for n in range(5, 36))],
    "linux-aarch64": ["manylinux2014_aarch64", *(f"manylinux_2_{n}_aarch64" for n in range(17, 36))],
    "darwin-arm64": list(tags.mac_platforms((14, 0), "arm64")),
}
"""The oldest systems for which MLX has wheels -> the platform tags that pip takes there."""
MINORS = (11, 12, 13, 14)


def requirements(name: str) -> dict[tuple[str, str], str]:
    """{(package, version): its marker} of a requirement file."""
    text = (PROJECT / name).read_text().replace("\\\n", " ")
    lines = [line.split(" --hash", 1)[0] for line in text.splitlines() if line]
    pairs = [re.fullmatch(r"([a-z0-9-]+)==([^ ;]+)(?: ; (.*?))?\s*", line).groups() for line in lines]
    return {(package, version): marker or "" for package, version, marker in pairs}


def wheels() -> dict[tuple[str, str], list[str]]:
    """{(package, version): names of its wheels} of uv.lock."""
    packages = tomllib.loads((PROJECT / "uv.lock").read_text())["package"]
    return {
        (package["name"], package["version"]): [wheel["url"].rpartition("/")[2] for wheel in package["wheels"]]
        for package in packages
        if "wheels" in package
    }


def accepted(platform: str, minor: int) -> set[tags.Tag]:
    """The tags of wheels that pip installs there."""
    names = PLATFORMS[platform]
    return {
        *tags.cpython_tags((3, minor), platforms=names),
        *tags.compatible_tags((3, minor), f"cp3{minor}", names),
    }


@pytest.mark.parametrize("name", FILES)
def test_a_requirement_file_is_what_uv_exports(name: str) -> None:
    """
    Nobody edits one by hand, or forgets `./doit lock` after a new dependency.
    """
    assert locks.exported(locks.options()[name]) == (PROJECT / name).read_text()


def test_the_lock_is_that_of_the_declared_dependencies() -> None:
    """
    uv would resolve again, and needs a network for it; what it compares first is written in the lock itself.
    """
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())
    packages = tomllib.loads((PROJECT / "uv.lock").read_text())["package"]
    own = next(package for package in packages if package["name"] == project["project"]["name"])
    declared = {
        "": project["project"]["dependencies"],
        **project["project"]["optional-dependencies"],
        **project["dependency-groups"],
    }
    locked = {
        "": [one for one in own["metadata"]["requires-dist"] if "extra ==" not in one.get("marker", "")],
        **{
            name: [one for one in own["metadata"]["requires-dist"] if f"extra == '{name}'" in one.get("marker", "")]
            for name in project["project"]["optional-dependencies"]
        },
        **own["metadata"]["requires-dev"],
    }

    def names(group: list[str]) -> list[tuple[str, str]]:
        pairs = [re.match(r"([A-Za-z0-9_.-]+)(?:\[\w+\])?([^;]*)", one).groups() for one in group]
        return sorted((package.replace("_", "-"), bound.strip()) for package, bound in pairs)

    assert {name: names(group) for name, group in declared.items()} == {
        name: sorted((one["name"], one.get("specifier", "")) for one in group) for name, group in locked.items()
    }


@pytest.mark.parametrize("name", FILES)
def test_a_requirement_file_names_no_registry_and_hashes_every_package(name: str) -> None:
    """
    One lock serves Linux and macOS; the address of a mirror would not work elsewhere.
    """
    lines = (PROJECT / name).read_text().splitlines()
    packages = [line for line in lines if line and not line.startswith((" ", "#"))]

    assert not [line for line in lines if "://" in line or line.startswith("-")]
    assert all(line.endswith("\\") for line in packages)
    assert {("mlx-cpu", "0.32.4"), ("mlx-metal", "0.32.4")} <= set(requirements(name))


@pytest.mark.parametrize("name", [name for name in FILES if name != locks.BASE])
def test_more_packages_are_the_users_and_others(name: str) -> None:
    """
    An environment with more serves a user's commands: the same versions give the same numbers.
    """
    user, more = requirements(locks.BASE), requirements(name)

    assert user.items() < more.items()
    assert more.items() <= requirements(locks.DEVELOPERS).items()


def test_a_user_gets_no_tool_of_developers() -> None:
    """
    A browser, a type checker and Parquet take more than all the rest.
    """
    packages = {package for package, _ in requirements(locks.BASE)}

    assert set() == packages & {"hypothesis", "mypy", "playwright", "pyarrow", "pytest", "ruff", "uv"}
    assert {"pyarrow"} == {package for package, _ in requirements(locks.of_extra("parquet"))} - packages


def test_the_package_imports_only_what_users_get() -> None:
    """
    Each other import waits for a user whose command ends in it.
    """
    locked = {package for package, _ in requirements(locks.BASE)}
    providers = {
        module: {canonicalize_name(name) for name in names}
        for module, names in metadata.packages_distributions().items()
    }
    ours = {"thunder_train", *sys.stdlib_module_names}
    foreign = {
        (path.name, top)
        for path in (PROJECT / "thunder_train").rglob("*.py")
        for top in {name.partition(".")[0] for name in imports(path)} - ours
        if not providers.get(top, set()) & locked
    }

    assert {("arrow_rows.py", "pyarrow")} == foreign


@pytest.mark.parametrize(("platform", "minor"), [*product(PLATFORMS, MINORS)])
def test_every_package_has_a_wheel_for_each_python_and_platform(platform: str, minor: int) -> None:
    """
    Nobody needs a compiler, and none of the versions that ./doit takes fails in the middle.
    """
    system, machine = platform.split("-")
    environment = {
        "sys_platform": system,
        "platform_machine": machine,
        "python_version": f"3.{minor}",
        "python_full_version": f"3.{minor}.0",
    }
    suitable, files = accepted(platform, minor), wheels()

    needed = [
        each
        for each, marker in requirements(locks.DEVELOPERS).items()
        if not marker or Marker(marker).evaluate(environment)
    ]
    lacking = [
        each for each in needed if not any(parse_wheel_filename(name)[3] & suitable for name in files.get(each, []))
    ]

    assert [] == lacking
    assert len(needed) > 60


def test_packages_for_developers_are_named_by_tasks_that_make_their_environment() -> None:
    """
    `./doit lint` in an environment of users would end in "No module named ruff".
    """
    text = (PROJECT / "dodo.py").read_text()
    tasks = dict(re.findall(r'def task_(\w+)\(\).*?return utility\("([\w.]+)', text, re.DOTALL))
    words = re.search("^DEVELOPERS='(.*)'", (PROJECT / "doit").read_text(), re.MULTILINE)[1].split()

    assert [*words] == sorted(name for name, module in tasks.items() if not module.startswith("thunder_train."))
    assert importlib.util.find_spec("uv")
