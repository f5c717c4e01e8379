"""Chat templates with the structure of each family of models, in few words.

They end a turn with `<end_of_turn>`, the end-of-sequence token of the nano tokenizer, where the family ends one.
"""

_TURNS = (
    "{% for message in messages %}"
    "<start_of_turn>{{ message.role }}\n{{ message.content | trim }}<end_of_turn>\n"
    "{% endfor %}{% if add_generation_prompt %}<start_of_turn>assistant\n{% endif %}"
)
_THOUGHTS_IN_PROMPT = (
    "{% for message in messages %}"
    "<start_of_turn>{{ message.role }}\n{{ message.content }}<end_of_turn>\n"
    "{% endfor %}{% if add_generation_prompt %}<start_of_turn>assistant\n"
    "{% if not enable_thinking %}<think></think>{% endif %}{% endif %}"
)
_THOUGHTS_IN_LAST = (
    "{% for message in messages %}"
    "<start_of_turn>{{ message.role }}\n"
    "{% if message.role == 'assistant' and loop.last %}<think>\n\n</think>\n\n{% endif %}"
    "{{ message.content.split('</think>')[-1].lstrip('\n') }}<end_of_turn>\n"
    "{% endfor %}{% if add_generation_prompt %}<start_of_turn>assistant\n"
    "{% if not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
_CHANNELS = (
    "{% for message in messages %}"
    "<start_of_turn>{{ message.role }}{% if message.role == 'assistant' %}<|channel|>final{% endif %}<|message|>"
    "{{ message.content }}{% if message.role == 'assistant' and loop.last %}<end_of_turn>{% else %}<|end|>{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<start_of_turn>assistant{% endif %}"
)
_NEVER_ENDED = (
    "{% for message in messages %}"
    "<|{{ message.role }}|>\n{% if message.role == 'assistant' %}<think></think>\n{% endif %}{{ message.content }}"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>\n<think></think>{% endif %}"
)
_OPEN_THOUGHTS = (
    "{% for message in messages %}"
    "<|{{ message.role }}|>{{ message.content }}{% if message.role == 'assistant' %}<end_of_turn>{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|><think>\n{% endif %}"
)
_A_NEWLINE_MORE = (
    "{% for message in messages %}"
    "<|{{ message.role }}|>{{ message.content }}{% if message.role == 'user' and not loop.last %}\n{% endif %}"
    "<end_of_turn>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
_ENDED_THOUGHTS = (
    "{% for message in messages %}"
    "<|{{ message.role }}|>{% if message.role == 'assistant' %}</think>{{ message.content }}<end_of_turn>"
    "{% else %}{{ message.content }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|><think>{% endif %}"
)
_CLOSED_IN_PROMPT = _ENDED_THOUGHTS.replace("<|assistant|><think>", "<|assistant|><think></think>")
_OTHER_HEADER = _ENDED_THOUGHTS.replace("</think>", "<|answer|>").replace(
    "<|assistant|><think>", "<|assistant|><|none|>"
)
_ENDED_TWICE = _TURNS.replace(
    "<end_of_turn>\n", "<end_of_turn>\n{% if message.role == 'assistant' %}<end_of_turn>{% endif %}"
)
_NOTHING_FOR_NOTHING = (
    "{% for message in messages if message.content %}"
    "<start_of_turn>{{ message.role }}\n{{ message.content }}<end_of_turn>\n"
    "{% endfor %}{% if add_generation_prompt %}<start_of_turn>assistant\n{% endif %}"
)
_TOOLS = (
    "{% if tools %}tools: {{ tools | tojson }}<end_of_turn>\n{% endif %}"
    "{% for message in messages %}"
    "<start_of_turn>{{ message.role }}\n{{ message.content }}"
    "{% for call in message.tool_calls or [] %}<call>{{ call.function | tojson }}</call>{% endfor %}<end_of_turn>\n"
    "{% endfor %}{% if add_generation_prompt %}<start_of_turn>assistant\n{% endif %}"
)
_CALLS_AS_TEXT = (
    "{% for message in messages %}"
    "<start_of_turn>{{ message.role }}\n"
    "{% for call in message.tool_calls or [] %}{{ message.content + '<call>' + call.function.name + ' ' "
    "+ call.function.arguments }}{% else %}{{ message.content }}{% endfor %}<end_of_turn>\n"
    "{% endfor %}{% if add_generation_prompt %}<start_of_turn>assistant\n{% endif %}"
)
_CALLS_WITHOUT_CONTENT = (
    "{% for message in messages %}<start_of_turn>{{ message.role }}\n"
    "{% if message.role == 'assistant' and message.content is none %}{% for call in message.tool_calls %}"
    "{{ '<call>' + call.function.name + ' ' + call.function.arguments }}{% endfor %}"
    "{% elif message.content is string %}{{ message.content }}{% endif %}<end_of_turn>\n"
    "{% endfor %}{% if add_generation_prompt %}<start_of_turn>assistant\n{% endif %}"
)
_NO_SYSTEM = (
    "{% for message in messages if message.role != 'system' %}"
    "<start_of_turn>{{ message.role }}\n{{ message.content }}<end_of_turn>\n"
    "{% endfor %}{% if add_generation_prompt %}<start_of_turn>assistant\n{% endif %}"
)
_KNOWN_ROLES = (
    "{% for message in messages %}"
    "{% if message.role not in ['system', 'user', 'assistant'] %}{{ raise_exception('no role ' + message.role) }}"
    "{% endif %}<start_of_turn>{{ message.role }}\n{{ message.content }}<end_of_turn>\n"
    "{% endfor %}{% if add_generation_prompt %}<start_of_turn>assistant\n{% endif %}"
)
_COUNTING = "{{ messages | length }}" + _TURNS

TEMPLATES = {
    "turns": _TURNS,  # Gemma 3, Llama 3, ChatML
    "thoughts in the prompt": _THOUGHTS_IN_PROMPT,  # Gemma 4 -it, Nemotron
    "thoughts in the last answer": _THOUGHTS_IN_LAST,  # Qwen 3
    "channels": _CHANNELS,  # gpt-oss
    "never ended": _NEVER_ENDED,  # GLM 4.5
    "open thoughts": _OPEN_THOUGHTS,  # DeepSeek R1
    "a newline more": _A_NEWLINE_MORE,  # Hermes 3, after the result of a tool
    "ended thoughts": _ENDED_THOUGHTS,  # GLM 4.7 with thinking on
    "thoughts closed in the prompt": _CLOSED_IN_PROMPT,  # DeepSeek V3.2
    "another header": _OTHER_HEADER,  # Command R7B
    "ended twice": _ENDED_TWICE,  # Apriel, Phi 3.5
    "nothing for nothing": _NOTHING_FOR_NOTHING,  # Seed-OSS, Nemotron
    "tools": _TOOLS,
    "calls as text": _CALLS_AS_TEXT,  # DeepSeek V3
    "calls without content": _CALLS_WITHOUT_CONTENT,
    "no system": _NO_SYSTEM,
    "known roles": _KNOWN_ROLES,
    "counting": _COUNTING,  # rewrites what it wrote
}
"""Templates by structure."""
