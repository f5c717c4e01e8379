"""Tasks that use an adapter: `correct:<recipe>` for files of new rows, `chat:<recipe>` for a person."""

import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thunder_train import ThunderError
from thunder_train.cli.ending import OutputLost
from thunder_train.cli.tasks import PROJECT, fails_cleanly
from thunder_train.config.project import Recipe
from thunder_train.core import caller, console, paths
from thunder_train.core.text import printable_lines

if TYPE_CHECKING:
    from thunder_train.pipeline.conversation import Conversation, Reply, Turn

ROWS_FILE = {"name": "rows", "long": "rows", "type": str, "default": "", "help": "the file of new rows"}
OUT = {"name": "out", "long": "out", "type": str, "default": "", "help": "the file to write"}

PROMPT = {"name": "prompt", "long": "prompt", "type": str, "default": "", "help": "ask this alone"}
BASE = {"name": "base", "long": "base", "type": bool, "default": False, "help": "the base model alone answers"}
MAX_TOKENS = {"name": "max_tokens", "long": "max-tokens", "type": int, "default": 0, "help": "most tokens of an answer"}
DEQUANTIZE = {
    "name": "dequantize",
    "long": "dequantize",
    "type": bool,
    "default": False,
    "help": "unpack the weights: a larger folder, and nothing is rounded",
}
FOR = {"name": "base", "long": "for", "type": str, "default": "", "help": "the base's name for PEFT, as OWNER/NAME"}
NEW = "/new"
"""A line that makes a conversation begin anew."""
WELL_KEPT = 0.9
"""A fused folder that keeps a smaller share of the adapter's effect is warned of."""
ENDED = {"length": "cut at the most tokens; --max-tokens N", "thinking": "it was still thinking; --max-tokens N"}
"""How an answer ended that did not end by itself."""


@fails_cleanly
def correct_rows(recipe: Recipe, as_json: bool, rows: str, out: str) -> None:
    """`correct:<recipe> --rows FILE`: new rows through adapter and gate."""
    from thunder_train.pipeline import correction

    if not rows:
        raise ThunderError("no file of rows is given", f"correct:{recipe.name}", "add --rows FILE")
    source = caller.path(rows)
    stem = Path(rows).name.partition(".")[0]
    target = Path(caller.path(out) if out else f"{paths.corrected(recipe.name)}/{stem}.jsonl")
    summary = correction.correct(recipe, source, target, PROJECT)
    if as_json:
        console.print_json(summary)
    else:
        print("\n".join(_in_words(summary, target)))


def _in_words(summary: dict[str, Any], target: Path) -> list[str]:
    decisions = ", ".join(f"{count:,} {word}" for word, count in summary["decisions"].items())
    reasons = sorted(summary["reasons"].items(), key=lambda item: (-item[1], item[0]))
    return [f"{target}: {summary['rows']:,} rows: {decisions}", *(f"  {count:,} {reason}" for reason, count in reasons)]


@fails_cleanly
def chat(recipe: Recipe, as_json: bool, prompt: str, base: bool, max_tokens: int) -> None:
    """`chat:<recipe>`: one prompt, or each line of stdin until it ends. Ctrl-C ends it too."""
    from thunder_train.pipeline import conversation

    if max_tokens < 0:
        raise ThunderError(f"is {max_tokens}", "--max-tokens", "give 1 or more; 0: as many as in the evaluation")
    conditions = ("base",) if base else ("base", "adapter")
    with conversation.opened(recipe, PROJECT, conditions, max_tokens) as talk:
        is_terminal = not prompt and sys.stdin.isatty()
        if is_terminal:
            print(_welcome(talk))
        try:
            for text in [prompt] if prompt else _lines(is_terminal):
                if text.strip() == NEW:
                    talk.begin_anew()
                elif text.strip() or prompt:
                    _show(text, talk.say(text), as_json)
        except OutputLost:
            raise
        except KeyboardInterrupt as interrupt:
            if not is_terminal or signal.SIGINT not in (*interrupt.args, signal.SIGINT)[:1]:
                raise
            print()


@fails_cleanly
def fuse(recipe: Recipe, as_json: bool, dequantize: bool) -> None:
    """`fuse:<recipe>`: a model folder, and how much of the adapter's effect it keeps."""
    from thunder_train.pipeline import sharing

    fused = sharing.fuse(recipe, PROJECT, dequantize)
    if as_json:
        console.print_json(fused)
        return
    losses = ", ".join(f"{name} {loss:.4f}" for name, loss in fused["loss"].items())
    print(
        f"{fused['folder']}: {fused['layers']} layers fused; it keeps {fused['kept']:.1%} of the adapter's effect and"
    )
    print(
        f"writes {fused['same_words']:.1%} of the same tokens ({fused['rows']} rows; loss of their answers: {losses})"
    )
    if fused["kept"] < WELL_KEPT:
        hint = "base and adapter as they are lose nothing, and neither does --dequantize"
        print(f"warning: packed weights round the adapter away in part; {hint}", file=sys.stderr)


@fails_cleanly
def export(recipe: Recipe, as_json: bool, base: str) -> None:
    """`export:<recipe>`: a folder that PEFT loads."""
    from thunder_train.pipeline import sharing

    exported = sharing.export(recipe, PROJECT, base)
    if as_json:
        console.print_json(exported)
    else:
        print(f"{exported['folder']}: {exported['modules']} layers for PEFT, on the base {exported['base']}")


def _welcome(talk: "Conversation") -> str:
    who = " and ".join(talk.conditions)
    again = "" if talk.corrects else f"; {NEW} begins anew"
    what = "corrects each line" if talk.corrects else "answers"
    return f"{who} {what if len(talk.conditions) == 1 else what.replace('s', '', 1)}{again}; Ctrl-D ends"


def _lines(is_terminal: bool) -> Iterator[str]:
    """Lines of a person, or of a file."""
    if not is_terminal:
        yield from (line.rstrip("\n") for line in sys.stdin)
        return
    import readline  # noqa: F401  (input() edits lines with it)

    while True:
        try:
            yield input("> ")
        except EOFError:
            print()
            return


def _show(text: str, turn: "Turn", as_json: bool) -> None:
    if as_json:
        replies = {
            name: {key: value for key, value in reply._asdict().items() if value}
            for name, reply in turn.replies.items()
        }
        console.print_json(
            {
                "schema": "thunder.chat/1",
                "prompt": text,
                "replies": replies,
                "decision": turn.decision or None,
                "problem": turn.problem,
            }
        )
        return
    lines = [f"not asked: {turn.problem}"] if turn.problem else []
    lines += [_labelled(name, _said(reply)) for name, reply in turn.replies.items()]
    if turn.decision:
        lines.append(_labelled("gate", f"{turn.decision['decision']}: {turn.decision['reason']}"))
        lines.append(_labelled("text", turn.decision["text"]))
    print(printable_lines("\n".join(lines)), flush=True)


def _said(reply: "Reply") -> str:
    if reply.problem:
        return f"(no answer: {reply.problem})"
    return f"{reply.text} ({ENDED[reply.finish]})" if reply.finish in ENDED else reply.text


def _labelled(name: str, text: str) -> str:
    """`base:    text`, further lines below the first."""
    return f"{name + ':':<9}" + text.replace("\n", "\n" + " " * 9)
