"""The keys of [report]: what a run's page says of its project. Texts only; none can change a number."""

from dataclasses import dataclass

from thunder_train.config.fields import text, texts


@dataclass(frozen=True, eq=False, kw_only=True)
class Report:
    """The [report] table: sentences for report.html and report.md, each a plain text."""

    title: str = text(help="Title of the page; by default the recipe's name", default="", operational=True)
    date: str = text(
        help="Date of the page, as 2026-04-21; no file that is committed holds one by itself",
        pattern=r"^$|^\d{4}-\d\d-\d\d$",
        default="",
        operational=True,
    )
    applies_to: tuple[str, ...] = texts(
        help="What the training applies to, and what it does not, a paragraph each", default=(), operational=True
    )
    use_for: tuple[str, ...] = texts(help="Architecture boundary: what to use it for", default=(), operational=True)
    do_not: tuple[str, ...] = texts(help="Architecture boundary: what not to take it for", default=(), operational=True)
    bridge: tuple[str, ...] = texts(
        help="The steps of the system around it, in their order", default=(), operational=True
    )
    bridge_note: str = text(
        help="Which step the adapter improves, and which it does not replace", default="", operational=True
    )
