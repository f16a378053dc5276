"""A wrapper written as a tokenizer's chat template, so that any server asks the model as it was trained."""

from __future__ import annotations

import re

from kit19_ray.lm.prompts import CHAT, prompt_format


def chat_template(name: str) -> str | None:
    """A wrapper as a tokenizer's chat template, for servers that know nothing else; None: the tokenizer's own stays.

    It renders what `PromptFormat.segments` makes of a conversation, an end-of-text token behind each answer.
    """
    if name == CHAT:
        return None
    prompt = prompt_format(name)

    def pieces(template: str, **values: str) -> str:
        return "".join(
            "{{ " + values[part[1:-1]] + " }}"
            if part in ("{instruction}", "{input}")
            else "{{ " + _literal(part) + " }}"
            for part in re.split(r"(\{instruction\}|\{input\})", template)
            if part
        )

    with_system = pieces(prompt.with_input, instruction="system", input="message['content']")
    alone = pieces(prompt.without_input, instruction="message['content']")
    return (
        "{%- set system = messages[0]['content'] if messages[0]['role'] == 'system' else '' -%}"
        "{%- for message in messages -%}"
        "{%- if message['role'] == 'user' -%}"
        "{%- if system -%}" + with_system + "{%- else -%}" + alone + "{%- endif -%}"
        "{%- elif message['role'] == 'assistant' -%}{{ message['content'] }}{{ eos_token }}"
        "{%- endif -%}{%- endfor -%}"
    )


def _literal(text: str) -> str:
    """A Jinja string of the text."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n") + "'"
