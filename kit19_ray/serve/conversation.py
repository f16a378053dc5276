"""Messages to the prompt the model was trained on.

With a prompt wrapper (`kit19_ray.lm.prompts`), which knows an instruction and an input and a single turn:

    user                        instruction, no input: byte for byte what training made of it
    system, user                system is the instruction, user the input
    [system,] user, assistant, user, ...
                                each earlier turn is one whole training example, its end of text included, before the
                                prompt of the last; `system` is the instruction of every turn

With a tokenizer's chat template, what the template says: its markers are special tokens, those that somebody typed are
text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kit19_ray.artifacts import manifest
from kit19_ray.artifacts.stage_manifests import is_train
from kit19_ray.io import storage
from kit19_ray.lm.prompts import CHAT, PromptFormat, prompt_format
from kit19_ray.lm.text_encoder import TextEncoder
from kit19_ray.serve.api_error import ApiError
from kit19_ray.serve.chat import RequestMessage


def wrapper(model: str, named: str | None) -> PromptFormat | None:
    """The wrapper of `model`: the one named, else that of the train prefix, else None.

    Args:
        model: a train prefix or any Hugging Face model.
        named: the config's `serve.prompt`.

    Raises:
        ConfigError: there is no such wrapper.
    """
    if named is not None:
        return prompt_format(named, "serve.prompt")
    made = manifest.read(storage.normalise(model))
    if not is_train(made) or made["prompt"] == CHAT:
        return None
    return prompt_format(made["prompt"])


class Conversation:
    """How a model is talked to.

    Args:
        tokenizer: the model's.
        encoder: text to token ids, by this tokenizer.
        wrapper: what it was trained with; None leaves it to the tokenizer's chat template.
    """

    def __init__(self, tokenizer: Any, encoder: TextEncoder, wrapper: PromptFormat | None) -> None:
        self._tokenizer = tokenizer
        self._encoder = encoder
        self._wrapper = wrapper
        self.stop = wrapper.stop if wrapper is not None else ()
        """Texts that would open a new turn."""

    def tokens(self, messages: Sequence[RequestMessage]) -> list[int]:
        """The prompt up to where the answer starts.

        Raises:
            ApiError: 400: the model has neither wrapper nor template, or they do not take these messages.
        """
        if self._wrapper is not None:
            return self._wrapped(self._wrapper, messages)
        if not getattr(self._tokenizer, "chat_template", None):
            raise ApiError(
                400,
                "this model has no chat template, and its training prompt is not known: set serve.prompt, "
                "or use /v1/completions with a prompt of your own",
                "messages",
            )
        return self._templated(messages)

    def _wrapped(self, wrapper: PromptFormat, messages: Sequence[RequestMessage]) -> list[int]:
        system = messages[0].content if messages[0].role in ("system", "developer") else ""
        turns = messages[1:] if messages[0].role in ("system", "developer") else messages
        for place, message in enumerate(turns):
            wanted = ("user", "assistant")[place % 2]
            if message.role != wanted:
                raise ApiError(400, f"messages: turn {place + 1} is {message.role}'s, expected {wanted}'s", "messages")
        if len(turns) % 2 == 0:
            raise ApiError(400, "messages must end with one of the user's", "messages")
        ids: list[int] = []
        end = self._tokenizer.eos_token_id  # None: the model was not trained by us, and nothing of its ends a text
        for place, message in enumerate(turns):
            if message.role == "assistant":
                ids += self._encoder.text([message.content])[0] + ([] if end is None else [int(end)])
                continue
            if not message.content:
                raise ApiError(400, f"messages: turn {place + 1} is empty", "messages")
            text = wrapper.render(system, message.content) if system else wrapper.render(message.content)
            ids += self._encoder.text([text])[0]
        return ids

    def _templated(self, messages: Sequence[RequestMessage]) -> list[int]:
        from jinja2 import TemplateError

        quoted = self._encoder.quoted
        turns = [{"role": m.role.replace("developer", "system"), "content": quoted(m.content)} for m in messages]
        try:
            text = self._tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        except TemplateError as error:  # a template refuses turns by raising one
            raise ApiError(400, f"messages: the model's chat template says: {str(error)[:200]}", "messages") from None
        return self._encoder.templated([text])[0]
