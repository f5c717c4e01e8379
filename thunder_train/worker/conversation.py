"""Questions of a person, answered by the base model and by the adapter on it, as an evaluation would answer them.

Input: messages.  Output: an answer. The model is loaded once; layers with and without the adapter share its weights.
"""

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.nn as nn
from mlx.utils import tree_unflatten

from thunder_train.core import files
from thunder_train.worker import correction, evaluation, saved_adapter
from thunder_train.worker.answer_text import Answer
from thunder_train.worker.evaluate_args import Task
from thunder_train.worker.evaluation import CONDITIONS
from thunder_train.worker.kept_answers import KeptAnswers
from thunder_train.worker.ranks import Ranks


class Conversation:
    """A base model and an adapter that answer one question after another, in one process."""

    def __init__(self, task: Task) -> None:
        saved_adapter.check(task.adapter_path)
        self.max_seq_len = task.max_seq_len
        self.ready = evaluation.opened(task)
        network = self.ready.network
        before = dict(network.named_modules())
        saved_adapter.put_on(network, task.adapter_path)
        network.eval()
        adapted = [(name, each) for name, each in network.named_modules() if before.get(name, each) is not each]
        layers = {"base": [(name, before[name]) for name, _ in adapted], "adapter": adapted}
        self.layers: dict[str, list[tuple[str, nn.Module]]] = {name: layers[name] for name in CONDITIONS}
        """Of each condition the layers in which they differ, by their names."""
        self.session = self.ready.session(1, Ranks(rank=0, size=1), KeptAnswers(None, {}), lambda: None)

    def answer(self, messages: list[dict[str, str]], condition: str, max_tokens: int = 0) -> Answer | str:
        """The answer, or why there is none. messages: the last one is the person's. max_tokens: 0: as in an evaluation.

        Raises ThunderError if the chat template fails.
        """
        with tempfile.TemporaryDirectory(prefix="thunder-") as folder:
            # A row of a dataset, so that its prompt has the tokens that it was trained with; any answer will do.
            path = Path(folder) / "rows-00000.jsonl"
            stand_in = {"role": "assistant", "content": messages[-1]["content"]}
            files.write_text(path, files.json_line({"messages": [*messages, stand_in]}))
            question = correction.questions(path, self.ready, self.max_seq_len)[0]
        if isinstance(question, str):
            return question
        self.ready.network.update_modules(tree_unflatten(self.layers[condition]))
        session = replace(self.session, max_tokens=max_tokens or self.session.max_tokens)
        return evaluation.answer(session, [question])[0]


def serve(talk: Conversation, ask: Callable[[], Any], tell: Callable[[dict[str, Any]], None]) -> None:
    """Answer requests until ask gives None. A request: messages, condition and max_tokens."""
    while (request := ask()) is not None:
        answer = talk.answer(request["messages"], request["condition"], request["max_tokens"])
        tell({"problem": answer} if isinstance(answer, str) else {"text": answer.text, "finish": answer.finish})
