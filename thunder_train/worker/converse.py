"""Answers questions that another program passes on: a request a line of JSON on stdin, an answer a line on stdout.

It takes the flags of an evaluation. It ends when its stdin does. Whatever else it prints goes to stderr.
"""

import json
import os
import sys

from thunder_train.worker.bootstrap import enter
from thunder_train.worker.evaluate_args import Task, parsed


def main(argv: list[str]) -> None:
    """Load the model, say so with an empty object, then answer."""
    task = parsed(Task, argv, "thunder_train.worker.converse", "answer questions with base model and adapter")
    with open(os.dup(1), "w", encoding="utf-8") as out:
        os.dup2(2, 1)  # mlx-lm may print
        # After the flags, so that a mistake in them shows at once: mlx and mlx-lm take two seconds to import.
        from thunder_train.worker import conversation

        def tell(answer: dict[str, object]) -> None:
            print(json.dumps(answer), file=out, flush=True)

        def ask() -> object:
            line = sys.stdin.buffer.readline()
            return json.loads(line) if line.endswith(b"\n") else None

        talk = conversation.Conversation(task)
        tell({})
        conversation.serve(talk, ask, tell)


if __name__ == "__main__":
    enter(main)
