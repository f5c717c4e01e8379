"""What the documents say: links lead somewhere, keys exist, printed sentences are in the code, commands run."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.project_copy import PROJECT, Copy, add_lock, environment
from thunder_train.cli.commands import EXIT_STATUS
from thunder_train.cli.ending import FULL, USER_ERROR

PAGES = [PROJECT / "README.md", PROJECT / "AGENTS.md", *sorted((PROJECT / "docs").glob("*.md"))]
FOR_PEOPLE = ("docs/start-here.md",)
"""Pages whose blocks marked `sh` run."""
AGENTS = (PROJECT / "AGENTS.md").read_text(encoding="utf-8")
ELSEWHERE = ("reproduce", "push", "pull", "hosts", "sync", "correct", "chat", "fuse", "export", "prune", "compare")
"""Commands whose JSON their own tests check."""
FITTING = {"NAME": "smoke", "A": "smoke", "B": "smoke"}


def blocks(page: Path, mark: str) -> list[str]:
    """The fenced blocks of a page with this info string."""
    return re.findall(rf"^```{mark}\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    """The lines `./doit ...` of the blocks that run, without comments."""
    lines = [line for name in FOR_PEOPLE for block in blocks(PROJECT / name, "sh") for line in block.splitlines()]
    return [line.partition("#")[0].strip() for line in lines]


def rows_under(title: str) -> list[list[str]]:
    """The cells of the table that AGENTS.md has under a title."""
    section = AGENTS.partition(f"## {title}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[1:]]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_to_files(page: Path) -> None:
    """
    A page is moved or never written, and its index still names it.
    """
    links = re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8"))
    inner = [link for link in links if not re.match(r"[a-z]+:", link)]

    assert [] == [link for link in inner if not (page.parent / link).exists()]


def test_index_names_every_page() -> None:
    """
    A page that the index lacks is read by nobody.
    """
    index = (PROJECT / "docs/README.md").read_text(encoding="utf-8")

    assert [] == [page.name for page in PAGES[2:] if page.name != "README.md" and f"]({page.name})" not in index]


def test_sentences_of_troubleshooting_are_printed() -> None:
    """
    Who searches the page for an error finds it only in the words that the program prints.
    """
    code = "".join(path.read_text(encoding="utf-8") for path in sorted((PROJECT / "thunder_train").rglob("*.py")))
    code = re.sub(r'"\n\s*f?"', "", code) + (PROJECT / "doit").read_text(encoding="utf-8")
    text = (PROJECT / "docs/troubleshooting.md").read_text(encoding="utf-8")
    printed = re.findall(r"^\| `([^`]+)`", text, re.MULTILINE)

    assert 20 <= len(printed)
    assert [] == [part for each in printed for part in map(str.strip, each.split("…")) if part not in code]


@pytest.mark.parametrize("command", commands())
def test_command_of_start_here_runs(command: str, project: Copy) -> None:
    """
    A newcomer types what the page shows.
    """
    program, *words = shlex.split(command)
    assert "./doit" == program

    done = project.doit(*words)

    assert 0 == done.status, done.output


def shown_commands() -> list[str]:
    """Each `./doit ...` of a page's blocks that needs no Mac, hub, network or person, for the recipe smoke."""
    lines = [
        line.partition("#")[0].strip()
        for page in PAGES
        for block in re.findall(r"^```(?:sh)?\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
        for line in block.splitlines()
    ]
    ours = dict.fromkeys(line.replace("nko-nano", "smoke") for line in lines if line.startswith("./doit"))
    known = [re.sub(r"\b(NAME|RECIPE)\b", "smoke", line) for line in ours]
    return [line for line in known if not any(word in line for word in ELSEWHERE_RUN)]


ELSEWHERE_RUN = (
    *(
        "./doit test",
        "./doit lint",
        "./doit lock",
        "some/manifest",
        "PATH/",
        ":macs",
        "s3://",
        "/Volumes",
        "ssh://",
        "./doit chat:smoke ",
    ),
    *("spelling", "smollm2", "agp-nko", "EXTRA", "index.html", "OWNER", "[", "{", "<", "…", "..."),
)
"""Parts of commands that run in other tests, or that need what a test has not."""


@pytest.mark.slow
@pytest.mark.parametrize("command", shown_commands())
def test_command_of_a_page_runs(command: str, project: Copy, tmp_path: Path) -> None:
    """
    Whoever reads a page types what it shows. FILE and STORE stand for what a reader has.
    """
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"feat_id": "1", "asr_text": "ߊ ߓߊ"}\n', encoding="utf-8")
    _, *words = shlex.split(re.sub(r"\bFILE\b", str(rows), re.sub(r"\bSTORE\b", str(tmp_path / "store"), command)))
    project.edit("thunder.toml", 'recipes = ["smoke"]', f'recipes = ["smoke"]\nstore = "{tmp_path}/store"')
    if words == ["pull"]:
        assert 0 == project.doit("push").status

    done = project.doit(*words)

    assert 0 == done.status, done.output


def test_statuses_for_agents_are_those_of_the_code() -> None:
    """
    A program branches on them.
    """
    statuses = {cells[0]: cells[1] for cells in rows_under("Exit statuses")}

    assert {"0", "1", "2", str(USER_ERROR), str(FULL), "130, 143, 129"} == statuses.keys()
    for verdict, status in EXIT_STATUS.items():
        assert verdict in statuses[str(status)]


def test_json_of_commands_has_the_stated_schema(project: Copy) -> None:
    """
    A program reads the last line, or the whole.
    """
    rows = [(command, cells[1]) for cells in rows_under("Output for programs") for command in cells[0].split(", ")]
    checked = []
    add_lock(project.path)
    for command, schema in rows:
        words = [FITTING.get(word, word.replace("NAME", "smoke")) for word in shlex.split(command.strip("`"))[1:]]
        if words[0].partition(":")[0] in ELSEWHERE:
            continue
        done = subprocess.run(
            [sys.executable, "-m", "thunder_train.cli", *words],
            cwd=project.path,
            env=environment(project.path),
            capture_output=True,
            text=True,
            check=True,
        )
        is_whole = words[0] in ("why", "status", "runs")
        answer = json.loads(done.stdout if is_whole else done.stdout.splitlines()[-1])
        if not schema.startswith("no schema"):
            assert schema.strip("`") == answer["schema"], command
        checked.append(words[0])

    assert {"why", "status", "runs", "fit:smoke", "tokens:smoke", "replay:smoke", "attest:smoke"} == {*checked}


def test_schemas_for_agents_are_in_the_code() -> None:
    """
    Also those of commands that need hosts or a store.
    """
    code = "".join(path.read_text(encoding="utf-8") for path in sorted((PROJECT / "thunder_train").rglob("*.py")))

    assert [] == [name for name in re.findall(r"`(thunder\.[a-z]+/\d)`", AGENTS) if f'"{name}"' not in code]


def test_an_error_of_a_command_for_programs_is_json(fresh: Copy) -> None:
    """
    Each problem has its file, key and cure; no text has to be taken apart.
    """
    fresh.edit("thunder.toml", "[project]\n", "[project]\nnope = 1\nnada = 2\n")

    done = fresh.doit("why", "--json")
    error = json.loads(done.output.splitlines()[-1])

    assert (3, 3, "thunder.error/1") == (done.status, error["status"], error["schema"])
    assert 2 == len(error["problems"])
    assert all("thunder.toml" in each["where"] for each in error["problems"])
