"""The program doit: which command the words name, how tasks are loaded, and what is said of a word that is wrong.

doit's own main program names itself by the file that started it, answers with tracebacks and takes options only before
tasks; its commands, their options and their help stay as they are.
"""

import difflib
import getopt
import importlib.util
import inspect
import os
import sys
import tomllib
from pathlib import Path
from typing import Any

from doit import loader as doit_loader
from doit.cmd_base import DodoTaskLoader, get_loader
from doit.cmdparse import CmdOption, CmdParse, CmdParseError
from doit.doit_cmd import DoitMain
from doit.exceptions import InvalidCommand, InvalidDodoFile, InvalidTask

from thunder_train import ThunderError
from thunder_train.cli.ending import USER_ERROR
from thunder_train.core import caller

NAME = "doit"
HELP = ("-h", "--help")
TAKES_TASK_OPTIONS = ("run", "strace")
"""Commands whose tasks have options of their own, so that an option belongs to the task before it."""
LOOKS_UP_A_TASK = ("help", "info", "strace")
"""Commands of doit that do not say so themselves when there is no such task."""
OURS = {"backend": "--backend", "dep_file": "--db-file", "check_file_uptodate": "--check_file_uptodate"}
"""Options that would choose another memory than the one that every stage writes to."""


class ProjectLoader(DodoTaskLoader):  # type: ignore[misc]  # doit ships no types
    """Loads dodo.py. The project's folder comes last in the search for modules: its random.py is not Python's."""

    def setup(self, opt_values: dict[str, Any]) -> None:
        """Go to the project's folder and import its dodo.py. -f and -d are paths from the caller's folder."""
        doit_loader.initial_workdir = caller.folder()
        dodo = Path(_dodo_file(opt_values["dodoFile"], opt_values["seek_file"])).absolute()
        if not dodo.is_file():
            raise InvalidDodoFile(f"{opt_values['dodoFile']}: is missing; name the file of tasks with -f")
        os.chdir(_project_folder(opt_values["cwdPath"]) if opt_values["cwdPath"] else dodo.parent)
        sys.path.append(str(dodo.parent))
        spec = importlib.util.spec_from_file_location(dodo.stem, dodo)
        if spec is None or spec.loader is None:
            raise InvalidDodoFile(f"{dodo}: is no Python file")
        module = sys.modules[dodo.stem] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        self.namespace = dict(inspect.getmembers(module))

    def load_tasks(self, cmd: Any, pos_args: list[str]) -> list[Any]:
        """doit's tasks. Raises InvalidCommand for a word that should be one and is none."""
        tasks: list[Any] = super().load_tasks(cmd, [word for word in pos_args if word])
        cmd.known_names = [task.name for task in tasks]
        targets = {target for task in tasks for target in task.targets}
        if cmd.sel_tasks:
            cmd.sel_tasks = [_task_or_target(word, {*cmd.known_names}, targets) for word in cmd.sel_tasks]
        for task in tasks if cmd.name == "help" else ():
            task.doc = task.doc or next((each.doc for each in tasks if each.name == task.subtask_of), "")
        if cmd.name in LOOKS_UP_A_TASK and len(pos_args) == 1 and pos_args[0] not in cmd.known_names:
            raise InvalidCommand(not_found=pos_args[0])
        return tasks


class Program(DoitMain):  # type: ignore[misc]
    """doit with this project's commands."""

    BIN_NAME = NAME

    def __init__(self) -> None:
        try:
            super().__init__()
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
            what = "is nested too deeply" if isinstance(error, RecursionError) else f"is not TOML: {error}"
            raise ThunderError(what, "pyproject.toml", "correct it") from None

    def run(self, all_args: list[str]) -> int:
        """Run the command line and return its exit status."""
        if all_args[:1] == ["--version"]:
            self.print_version()
            return 0
        commands = self.get_cmds()
        loader = get_loader(self.config, ProjectLoader(), commands)
        loader_values, words = _loader_options(loader, _help_first(all_args, commands))
        words = self.process_args([word or " " for word in words])  # doit looks at the first letter of each word
        is_named = bool(words) and words[0] in commands
        name = words.pop(0) if is_named else "run"
        command = commands.get_plugin(name)(
            task_loader=loader, config=self.config, bin_name=NAME, cmds=commands, opt_vals=loader_values
        )
        try:
            return _execute(command, words) or 0
        except CmdParseError as error:
            return _refuse(_wrong_option(error, name))
        except InvalidCommand as error:
            word = _unknown_word(error)
            if word is None:
                return _refuse(str(error))
            names = [*getattr(command, "known_names", []), *(() if is_named else commands)]
            return _refuse(_no_such(word, names, is_named))
        except (InvalidDodoFile, InvalidTask) as error:
            return _refuse(str(error))


def _execute(command: Any, words: list[str]) -> int:
    """Parse a command's options, which may also follow its tasks, and run it."""
    parser = command.cmdparser
    if "backend" in parser:
        parser["backend"].choices = {}  # _refuse_another_memory says it better
    if command.name not in TAKES_TASK_OPTIONS:
        words = _options_first(words, parser)
    values, rest = parser.parse(words)
    for name, option in OURS.items():
        is_given = name in getattr(values, "_non_default_keys", ())
        if is_given and (name == "check_file_uptodate" or values[name] != parser[name].default):
            raise InvalidCommand(f"{option}: what doit remembers here is the project's own; leave the option out")
    command.pdb = values.get("pdb", False)
    values.update(command.opt_vals)
    status: int = command.execute(values, rest)
    return status


def _options_first(words: list[str], parser: CmdParse) -> list[str]:
    try:
        options, rest = getopt.gnu_getopt(words, parser.get_short(), parser.get_long())
    except getopt.GetoptError:
        return words  # the parser says what is wrong
    pairs = [[option, *([value] if _takes_value(option, parser) else [])] for option, value in options]
    return [*(word for pair in pairs for word in pair), "--", *rest]


def _takes_value(option: str, parser: CmdParse) -> bool:
    return bool(parser.get_option(option)[0].type is not bool)


def _loader_options(loader: ProjectLoader, words: list[str]) -> tuple[dict[str, Any], list[str]]:
    """Options that may come before the command, and the other words."""
    try:
        return CmdParse([CmdOption(option) for option in loader.cmd_options]).parse_only(words)  # type: ignore[no-any-return]
    except CmdParseError:
        return {}, words  # an option of the command `run`, which need not be named


def _help_first(words: list[str], commands: Any) -> list[str]:
    """`why -h` as `help why`, unless the -h is another program's, after --."""
    ours = words[: words.index("--")] if "--" in words else words
    if not set(HELP) & {*ours}:
        return words
    named = [word for word in ours if not word.startswith("-")]
    return (
        ["help", *[word for word in named if word in commands][:1]] if {*named} & {*commands} else ["help", *named[:1]]
    )


def _task_or_target(word: str, names: set[str], targets: set[str]) -> str:
    """A target that was given as a path from the caller's folder, as doit knows it; any other word as it is."""
    is_known = word in names or word in targets or word.startswith("-")
    return caller.path(word) if not is_known and caller.path(word) in targets else word


def _dodo_file(given: str, is_sought: bool) -> str:
    if given == "dodo.py" and not is_sought:
        return given  # the one of this project
    if not is_sought:
        return caller.path(given)
    folders = [Path(caller.folder()), *Path(caller.folder()).parents]
    return next((str(folder / given) for folder in folders if (folder / given).is_file()), given)


def _project_folder(given: str) -> str:
    """The folder of -d."""
    folder = caller.path(given)
    if not os.path.isfile(os.path.join(folder, "thunder.toml")):
        raise InvalidCommand(f"-d {given}: is no project's folder, for it holds no thunder.toml; name one that does")
    return folder


def _unknown_word(error: InvalidCommand) -> str | None:
    """The word that names no task; None if the error is another one."""
    if error.not_found is not None:
        return str(error.not_found).strip()
    text = str(error)
    return text[1:].removesuffix("' is not a task.").strip() if text.endswith("' is not a task.") else None


def _no_such(word: str, names: list[str], is_named: bool) -> str:
    """What is said of an unknown word. is_named: whether a command came before it."""
    kinds = "task" if is_named else "command or task"
    if word.startswith("-"):
        return f"no {kinds} is named {word!r}; options come before the tasks"
    whole = [f"manifest:{word}"] if f"manifest:{word}" in names else []
    near = [*whole, *difflib.get_close_matches(word, names, n=1)]
    hint = f"did you mean {near[0]!r}?" if near else "`doit list --all` shows the tasks, `doit help` the commands"
    return f"no {kinds} is named {word!r}; {hint}"


def _wrong_option(error: CmdParseError, command: str) -> str:
    """doit's sentence without the list of its option objects."""
    text = str(error).partition(" (parsing options:")[0].strip().replace("\n", " ")
    kind, is_plain, what = text.partition(": ")
    if is_plain and kind == "Error parsing Task":
        return f"{what} by the task before it; options of `doit {command}` come before the tasks"
    return f"doit {command}: {what if is_plain else text}; `doit help {command}` shows its options"


def _refuse(text: str) -> int:
    sys.stdout.flush()
    print(f"ERROR: {text.strip()}", file=sys.stderr)
    return USER_ERROR
