"""Texts to tokens: the tokens before a target are those of its prompt alone."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thunder_train import ThunderError

pytestmark = pytest.mark.mlx

END = "<end>"
WORDS = ["a", "b", "ab", "1", "12", "ߊ", "ߊ\u07eb", "e\u0301", "\U0001f642", "'s"]
PIECES = [*WORDS, " ", "  ", "\n", "\t", "\u00a0", END]
TEXTS = st.lists(st.sampled_from(PIECES), min_size=1, max_size=6).map("".join)


@pytest.fixture(scope="module")
def chats() -> dict[str, Any]:
    """Small tokenizers with merges: bytes as GPT-2's and as Llama 3's words, and SentencePiece's blanks."""
    from mlx_lm.tokenizer_utils import TokenizerWrapper
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    from thunder_train.worker.chat import Chat

    words = Regex(r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
    split = pre_tokenizers.Split(words, "isolated")
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made = {}
    for name in ("gpt2", "llama3", "sentencepiece"):
        model = Tokenizer(models.BPE())
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        if name == "sentencepiece":
            model.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
            alphabet = list("ab12ߊ\u07eb\u0301e\U0001f642'st\n\t\u00a0\u2581<>nd")
            model.decoder = decoders.Sequence(
                [decoders.Replace("\u2581", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
            )
        else:
            model.pre_tokenizer = (
                pre_tokenizers.ByteLevel(add_prefix_space=False)
                if name == "gpt2"
                else pre_tokenizers.Sequence([split, level])
            )
            model.post_processor = processors.ByteLevel(trim_offsets=True)
            model.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=len(alphabet) + 80, initial_alphabet=alphabet, special_tokens=["<end>"], show_progress=False
        )
        model.train_from_iterator(["ab  ab\n\nab ߊ\u07eb 12 \t\tab's\n a \u00a0\u00a0 b"] * 20, trainer)
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=model, eos_token=END)
        made[name] = Chat(TokenizerWrapper(tokenizer), end_answers=False)
    return made


@pytest.mark.parametrize("name", ["gpt2", "llama3", "sentencepiece"])
@given(prompt=TEXTS, answer=TEXTS)
@settings(max_examples=300, deadline=None)
def test_the_tokens_of_a_prompt_are_those_that_a_generation_begins_with(
    chats: dict[str, Any], name: str, prompt: str, answer: str
) -> None:
    """
    Wherever the border lies: within a merge, a run of blanks, or a letter and its mark. And no text is lost.
    """
    from thunder_train.worker.batching import encoding
    from thunder_train.worker.batching.targets import Passage

    chat = chats[name]
    passage = Passage(prompt + answer, ((len(prompt), len(prompt) + len(answer)),), adds_end=False)
    ((ids, ((start, stop),)),) = encoding.encode([passage], chat)

    assert tuple(chat.encode(prompt)) == ids[:start]
    assert stop == len(ids)
    assert chat.tokenizer.decode(chat.encode(prompt + answer)) == chat.tokenizer.decode(list(ids))


@pytest.mark.parametrize("name", ["gpt2", "llama3", "sentencepiece"])
@given(texts=st.lists(TEXTS, min_size=3, max_size=5))
@settings(max_examples=200, deadline=None)
def test_a_clean_border_leaves_the_tokens_of_the_whole_text(chats: dict[str, Any], name: str, texts: list[str]) -> None:
    """
    Targets that end with the end of a turn and follow one: no token lies across, so the text is encoded once.
    """
    from thunder_train.worker.batching import encoding
    from thunder_train.worker.batching.targets import Passage

    chat, text, spans = chats[name], "", []
    for each in texts:
        text += "q<end>"
        spans.append((len(text), len(text) + len(each) + 5))
        text += f"{each}<end>"
    ((ids, found),) = encoding.encode([Passage(text, tuple(spans), adds_end=False)], chat)

    assert tuple(chat.encode(text)) == ids
    assert [chat.tokenizer.eos_token_id] * len(spans) == [ids[stop - 1] for _, stop in found]
    for (start, _), (first, _) in zip(spans, found, strict=True):
        assert tuple(chat.encode(text[:start])) == ids[:first]


def test_a_tokenizer_without_offsets_gives_the_same(chats: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """
    One of Python, or with its own encode, is asked for each text by itself.
    """
    from thunder_train.worker.batching import encoding
    from thunder_train.worker.batching.targets import Passage

    passages = [
        Passage("ab\n\nab ߊ<end>", ((4, 13),), False),
        Passage("ab  ab", ((3, 6),), False),
        Passage("a<end>b<end>\n1<end>", ((6, 12), (13, 19)), False),
    ]
    fast = encoding.encode(passages, chats["llama3"])
    monkeypatch.setattr(encoding, "is_fast", lambda chat: False)

    assert fast == encoding.encode(passages, chats["llama3"])


def test_a_token_that_the_model_has_no_embedding_for_is_refused(folder: Path, tmp_path: Path) -> None:
    """
    Someone adds <|im_start|> to tokenizer.json and leaves the weights: MLX reads memory that is no embedding.
    """
    import mlx_lm.tokenizer_utils

    from thunder_train.worker.batching.tokens import example
    from thunder_train.worker.chat import Chat

    base = tmp_path / "base"
    shutil.copytree(folder / "nano", base)
    content = json.loads((base / "tokenizer.json").read_text())
    size = json.loads((base / "config.json").read_text())["vocab_size"]
    content["added_tokens"].append(content["added_tokens"][0] | {"id": size, "content": "<|im_start|>"})
    (base / "tokenizer.json").write_text(json.dumps(content))
    chat = Chat(mlx_lm.tokenizer_utils.load(base), "{% for m in messages %}<|im_start|>{{ m.content }}{% endfor %}")
    messages = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]

    with pytest.raises(ThunderError) as caught:
        example({"messages": messages}, chat, "x:1")

    assert str(caught.value) == (
        f"--model: the tokenizer writes <|im_start|> as token {size}, and the model's vocabulary has {size} tokens; "
        "use the tokenizer that belongs to the model, or a template without it"
    )
