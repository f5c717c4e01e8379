"""The program doit in this project: doit's own main, which answers each error in one sentence.

doit's own names itself by the file that started it, ends in a traceback when the machine refuses something, and takes
every path from the project's folder. Its commands, options and order of words stay as it documents them.
"""

import difflib
import os
import tomllib
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from typing import Any

from doit.cmd_base import DodoTaskLoader, get_loader
from doit.cmdparse import CmdOption, CmdParse, CmdParseError
from doit.doit_cmd import DoitMain
from doit.exceptions import InvalidCommand, InvalidDodoFile, InvalidTask

from thunder_train import PROGRAM, ThunderError, __version__
from thunder_train.build import sources
from thunder_train.core import caller

HELP = {"-h", "--help"}
SHOWN = 5
"""Tasks of a stage that an error names at most."""
TASK_OPTIONS = ("run",)
"""Commands whose words may be options of a task; the words of any other name tasks."""
OURS = {"backend": "--backend", "dep_file": "--db-file", "check_file_uptodate": "--check_file_uptodate"}
"""Options that would choose another memory than the one that every stage writes to."""


class ProjectLoader(DodoTaskLoader):  # type: ignore[misc]  # doit ships no types
    """doit's loader of dodo.py. Paths of -f, -d and of targets are paths from the caller's folder."""

    names: tuple[str, ...] = ()
    """Names of the tasks, once they are loaded."""

    def setup(self, opt_values: dict[str, Any]) -> None:
        """Import dodo.py, unless another memory of the project is asked for."""
        for name, option in OURS.items():
            if name in opt_values._non_default_keys:  # type: ignore[attr-defined]  # doit gives a dict of its own
                raise InvalidCommand(f"{option}: what doit remembers here is the project's own; leave the option out")
        for name in ("dodoFile", "cwdPath"):
            if opt_values[name] not in (None, "dodo.py"):
                opt_values[name] = caller.path(opt_values[name])
        super().setup(opt_values)

    def load_tasks(self, cmd: Any, pos_args: list[str]) -> list[Any]:
        """doit's tasks. Raises InvalidCommand for a word that should be one and is none."""
        tasks: list[Any] = super().load_tasks(cmd, pos_args)
        sources.order(tasks)
        self.names = tuple(task.name for task in tasks)
        targets = {target for task in tasks for target in task.targets}
        names = targets.union(self.names)
        if cmd.sel_tasks:
            cmd.sel_tasks = [caller.path(word) if _is_target(word, names) else word for word in cmd.sel_tasks]
        takes_others = cmd.name in TASK_OPTIONS or getattr(cmd, "takes_recipes", False)
        for word in () if takes_others else pos_args:
            if word not in names and "*" not in word and not _is_target(word, names):
                raise InvalidCommand(not_found=word)
        return tasks


def _is_target(word: str, names: set[str]) -> bool:
    return word not in names and caller.path(word) in names


class Program(DoitMain):  # type: ignore[misc]
    """doit with this project's commands and errors."""

    def __init__(self) -> None:
        self.BIN_NAME = os.environ.get(PROGRAM, "doit").removeprefix("./")
        try:
            super().__init__()
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ThunderError(f"is not TOML: {error}", "pyproject.toml", "correct it") from None

    def run(self, all_args: list[str]) -> int:
        """Run the command line and return its exit status, by the steps of doit's own. Raises ThunderError."""
        commands = self.get_cmds()
        loader = get_loader(self.config, ProjectLoader(), commands)
        words = _help_first(all_args, commands)
        if "" in words:
            raise ThunderError("an empty word is no command and no task")
        if words[:1] == ["--version"]:
            print(f"Thunder Train {__version__}, doit {version('doit')}")
            return 0
        try:
            before, words = CmdParse([CmdOption(option) for option in loader.cmd_options]).parse_only(words)
        except CmdParseError:
            before = {}  # the first is an option of the command `run`, which need not be named
        words = self.process_args(words)
        name = words.pop(0) if words and words[0] in commands else ""
        command = commands.get_plugin(name or "run")(
            task_loader=loader, config=self.config, bin_name=self.BIN_NAME, cmds=commands, opt_vals=before
        )
        try:
            return command.parse_execute(words) or 0
        except CmdParseError as error:  # doit's sentence goes on with a list of option objects
            problem = str(error).partition(" (parsing options:")[0].strip(". \n").replace("\n", " ")
            hint = f"`doit help {name or 'run'}` shows the options, which come before the tasks"
            raise ThunderError(problem, hint=hint) from None
        except InvalidCommand as error:
            if error.not_found is not None:
                if not name and error.not_found in commands:
                    hint = f"it comes before its options: `doit {error.not_found}`"
                    raise ThunderError(f"{error.not_found!r} is a command", hint=hint) from None
                raise _no_such(error.not_found, loader.names, () if name else commands) from None
            raise ThunderError(str(error).strip()) from None
        except (InvalidDodoFile, InvalidTask) as error:
            if not os.path.exists("dodo.py") and "-f" not in words:
                raise ThunderError(
                    "no project is here", os.getcwd(), f"`{self.BIN_NAME} init NAME` begins one"
                ) from None
            if isinstance(error.__cause__, ThunderError):  # of thunder.toml and recipes
                raise error.__cause__ from None
            raise ThunderError(str(error).strip()) from None


def _help_first(words: list[str], commands: Any) -> list[str]:
    """`why -h` as `help why`, unless the -h is another program's, after --."""
    ours = words[: words.index("--")] if "--" in words else words
    if HELP.isdisjoint(ours):
        return words
    return ["help", *[word for word in ours if ":" in word or (word in commands and word != "help")][:1]]


def _no_such(word: str, tasks: Sequence[str], commands: Iterable[str]) -> ThunderError:
    """The error for an unknown word. commands: none where only a task could stand."""
    what = f"no {'command or task' if commands else 'task'} is named {word!r}"
    if word.startswith("-"):
        return ThunderError(what, hint="options come before the tasks")
    whole, stage = f"manifest:{word}", word.partition(":")[0] + ":"
    siblings = [task for task in tasks if task.startswith(stage)]
    near = [whole] if whole in tasks else difflib.get_close_matches(word, siblings or [*tasks, *commands], n=1)
    hint = "`doit list --all` shows the tasks, `doit help` the commands"
    if near:
        hint = f"did you mean {near[0]!r}?"
    elif siblings:  # as for data:RECIPE, whose name is the dataset's
        hint = f"there is {', '.join(siblings[:SHOWN])}{', ...' * (len(siblings) > SHOWN)}"
    return ThunderError(what, hint=hint)
