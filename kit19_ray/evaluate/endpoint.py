"""A server as the backend (`evaluate.endpoint`, `evaluate.judge`): OpenAI's protocol, asked with text.

The harness and the held-out rows hand on token ids. Here a token is a character (`CharacterTokenizer`), so what arrives
is the text itself, and the server cuts it into its own tokens.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from kit19_ray.errors import EvaluateError
from kit19_ray.evaluate.actors import GenerateOptions, OnResults, progress
from kit19_ray.evaluate.openai_client import EndpointRefusal, OpenAIClient
from kit19_ray.lm.decoding import DecodedText
from kit19_ray.lm.prefix_tree import Request
from kit19_ray.utils.json_types import Json

KEYS = ("KIT19_ENDPOINT_API_KEY", "OPENAI_API_KEY")
END = 0  # what ends a text, as a token: NUL, which no text holds
_CONVERSATION = "\x01"  # what a conversation begins with, as text
_MAX_STOPS = 4  # OpenAI's limit; further ones are looked for here
MAX_LENGTH = 1 << 40  # characters: the server says what is too long


class CharacterTokenizer:
    """One token a character."""

    eos_token_id = END
    bos_token_id = None
    bos_token = eos_token = None  # as text: a server's template writes its own
    name_or_path = "characters"

    def __init__(self, chat: bool) -> None:
        self.chat_template = "messages" if chat else None

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """The characters' code points."""
        return [ord(character) for character in text]

    def __call__(self, texts: Sequence[str], **options: bool) -> dict[str, list[list[int]]]:
        """The same for several texts, as transformers has it; there are no special tokens."""
        return {"input_ids": [self.encode(text) for text in texts]}

    def decode(self, ids: int | Sequence[int], skip_special_tokens: bool = False) -> str:
        """The text."""
        return chr(ids) if isinstance(ids, int) else "".join(map(chr, ids))

    def apply_chat_template(self, conversation: Sequence[dict[str, str]], **options: Any) -> str:
        """The conversation as text that `Endpoint` takes apart again: the server has the template."""
        return _CONVERSATION + json.dumps(list(conversation), ensure_ascii=False)


class Endpoint:
    """A server that answers.

    Args:
        key: the config key that names its URL, for messages.
        environment: variables that may hold its API key.
        model: None takes the only one that the server lists.
        chat: prompts are sent as messages; there are no log-likelihoods then.

    Raises:
        EvaluateError: it does not answer, or does not know the model.
    """

    def __init__(
        self, url: str, key: str, environment: Sequence[str], model: str | None, chat: bool, concurrency: int
    ) -> None:
        self._client = OpenAIClient(url, key, environment, concurrency)
        self._key, self._chat = key, chat
        try:
            self.model = model or self._client.only_model()
            self.can_score = not chat and self._gives_logprobs()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Ends the connections."""
        self._client.close()

    def _gives_logprobs(self) -> bool:
        try:
            self._loglikelihood("대한민국의 수도는", " 서울")
        except (EndpointRefusal, KeyError, TypeError, ValueError, IndexError):
            return False
        return True

    def loglikelihoods(
        self, requests: Sequence[Request], what: str, on_results: OnResults | None = None
    ) -> list[tuple[float, bool]]:
        """See `Backend.loglikelihoods`: sums over the server's tokens that begin within the continuation."""
        calls = [partial(self._loglikelihood, _text(context), _text(rest)) for context, rest in requests]
        return self._each(calls, what, on_results)

    def _loglikelihood(self, context: str, continuation: str) -> tuple[float, bool]:
        text = context + continuation
        body = {"prompt": text, "max_tokens": 1, "temperature": 0, "echo": True, "logprobs": 1}
        found = self._client.post("completions", {"model": self.model, **body})["choices"][0]["logprobs"]
        offsets, logprobs = found["text_offset"], found["token_logprobs"]
        # Some servers list the token that opens a text, which the text does not hold.
        opening = found["tokens"][0]
        shift = len(opening) if logprobs[0] is None and opening and not text.startswith(opening) else 0
        shift = shift if len(offsets) > 1 and offsets[1] == shift else 0
        asked = [
            n for n, at in enumerate(offsets) if len(context) <= at - shift < len(text) and logprobs[n] is not None
        ]
        if not asked:
            raise ValueError("the server's log-probabilities do not reach the continuation")
        tops = found.get("top_logprobs") or [None] * len(offsets)
        greedy = all(not tops[n] or max(tops[n].values()) <= logprobs[n] for n in asked)
        return float(sum(logprobs[n] for n in asked)), greedy

    def generate(
        self, prompts: Sequence[list[int]], options: GenerateOptions, what: str, on_results: OnResults | None = None
    ) -> list[DecodedText]:
        """See `Backend.generate`; a prompt that is a conversation is sent as one."""
        return self._each([partial(self._generate, _text(prompt), options) for prompt in prompts], what, on_results)

    def _generate(self, prompt: str, options: GenerateOptions) -> DecodedText:
        stop = list(options.get("stop", ()))
        body: Json = {
            "model": self.model,
            "max_tokens": options["max_tokens"],
            "temperature": options.get("temperature", 0.0),
            "top_p": options.get("top_p", 1.0),
        }
        if stop:
            body["stop"] = stop[:_MAX_STOPS]
        if self._chat:
            turns = (
                json.loads(prompt[1:]) if prompt.startswith(_CONVERSATION) else [{"role": "user", "content": prompt}]
            )
            choice = self._client.post("chat/completions", {**body, "messages": turns})["choices"][0]
            text = choice["message"].get("content") or ""
        else:
            choice = self._client.post("completions", {**body, "prompt": prompt})["choices"][0]
            text = choice["text"]
        ends = [place for place in (text.find(word) for word in stop) if place >= 0]
        reason = "length" if choice.get("finish_reason") == "length" and not ends else "stop"
        return DecodedText(text=text[: min(ends)] if ends else text, finish_reason=reason)  # type: ignore[arg-type]

    def _each(self, calls: Sequence[Callable[[], Any]], what: str, on_results: OnResults | None) -> list[Any]:
        out: list[Any] = [None] * len(calls)
        with progress(what, len(calls)) as advance:

            def heard(number: int, result: Any) -> None:
                out[number] = result
                advance(1)
                if on_results is not None:
                    on_results([number], [result])

            try:
                self._client.each(calls, heard)
            except (KeyError, TypeError, ValueError, IndexError) as error:
                raise EvaluateError(
                    f"{self._key}: an answer that is not OpenAI's: {type(error).__name__}: {error}"[:200]
                ) from error
        return out


def _text(ids: Sequence[int]) -> str:
    """The text of characters, without the end of text: a server does not say how likely that is."""
    return "".join(chr(token) for token in ids if token != END)
