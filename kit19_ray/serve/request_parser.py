"""A request as the model sees it: the sequences of its prompts, and the tokens of an answer with their names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from kit19_ray.config.schema import ServeConfig
from kit19_ray.lm.decoding import DecodedText
from kit19_ray.lm.sampling import SamplingParams
from kit19_ray.serve import responses, token_text
from kit19_ray.serve.api_error import ApiError
from kit19_ray.serve.chat import ChatRequest
from kit19_ray.serve.conversation import Conversation
from kit19_ray.serve.protocol import CompletionRequest, SamplingRequest, StreamOptions
from kit19_ray.serve.responses import Likely, Shape, Token
from kit19_ray.serve.tokenizing import DetokenizeRequest, TokenizeRequest
from kit19_ray.utils.json_types import Json


@dataclass
class ParsedRequest:
    """What one request asks of the model.

    Attributes:
        prompts: token ids of each prompt, of which each is answered `n` times.
        heads: text put before each prompt's answers.
        logprobs: how many likeliest tokens to list beside each; None lists no token.
        leading: special tokens at the beginning of each prompt that are not part of its text.
    """

    shape: Shape
    prompts: list[list[int]]
    heads: list[str]
    params: SamplingParams
    n: int
    logprobs: int | None
    lists_itself: bool
    """Whether the token itself is listed when it is not among the likeliest, as OpenAI has it for completions."""
    leading: int = 0
    echo: bool = False
    options: StreamOptions | None = None

    def sequences(self) -> list[tuple[list[int], SamplingParams]]:
        """Prompt and parameters of each answer, `n` a prompt, in order."""
        seed = self.params.seed
        # The n answers to a seeded prompt differ from one another, and are the same next time.
        seeds = [None if seed is None else (seed + copy) % 2**63 for copy in range(self.n)]
        return [(prompt, replace(self.params, seed=own)) for prompt in self.prompts for own in seeds]

    def usage(self, new_tokens: int) -> Json:
        """OpenAI's count of tokens."""
        return responses.usage(sum(map(len, self.prompts)), new_tokens)


class RequestParser:
    """Turns requests into what one model decodes, and what it decoded into tokens with names.

    Args:
        codec: the model's tokenizer, vocabulary size and context; a LoadedModel has them.
        limits: the config's serve section.
    """

    def __init__(self, codec: Any, limits: ServeConfig, conversation: Conversation) -> None:
        self._codec = codec
        self._limits = limits
        self._conversation = conversation
        self._bytes = token_text.TokenBytes(codec.tokenizer)
        self._leading = _leading(codec.tokenizer)

    def parse(self, request: CompletionRequest | ChatRequest) -> ParsedRequest:
        """What `request` asks of the model.

        Raises:
            ApiError: the prompt does not fit the model.
        """
        return self._chat(request) if isinstance(request, ChatRequest) else self._completion(request)

    def prompt(self, request: ChatRequest) -> Json:
        """The prompt that messages become, as text and as a number of tokens, and the texts that end an answer.

        Raises:
            ApiError: as `parse`.
        """
        parsed = self._chat(request)
        (ids,) = parsed.prompts
        return {"prompt": self._codec.decode(ids), "prompt_tokens": len(ids), "stop": list(parsed.params.stop)}

    def tokenize(self, request: TokenizeRequest) -> Json:
        """The tokens of a text or a conversation.

        Raises:
            ApiError: the model does not take such messages.
        """
        if request.messages is not None:
            ids = self._conversation.tokens(request.messages)
        else:
            ids = [*(self._leading if request.add_special_tokens else []), *self._codec.encode(request.prompt or "")]
        texts = token_text.token_texts(self._codec.tokenizer, ids) if request.return_token_strs else None
        return {"count": len(ids), "max_model_len": self._codec.max_length, "tokens": ids, "token_strs": texts}

    def detokenize(self, request: DetokenizeRequest) -> Json:
        """The text of tokens.

        Raises:
            ApiError: one of them is none of this model's.
        """
        self._check_ids(request.tokens, "tokens")
        return {"prompt": self._codec.decode(request.tokens)}

    def tokens(self, parsed: ParsedRequest, prompt: Sequence[int], head: str, done: DecodedText) -> list[Token] | None:
        """Those of the prompt (with `echo`) and of the completion up to where its text was cut; None if not asked."""
        if parsed.logprobs is None:
            return None
        tokenizer = self._codec.tokenizer
        found: list[Token] = []
        if parsed.echo:
            texts = [""] * parsed.leading + token_text.token_texts(tokenizer, prompt[parsed.leading :])
            scores = zip(done.prompt_logprobs, done.prompt_top_logprobs, strict=True)
            for token, text, place, (value, top) in zip(prompt, texts, token_text.offsets(texts), scores, strict=True):
                found.append(self._token(parsed, token, text, place, value, top or {}))
        texts = token_text.token_texts(tokenizer, done.token_ids)
        tops = done.top_logprobs or [{}] * len(done.token_ids)
        values = zip(done.logprobs, tops, strict=True)
        for token, text, place, (number, top) in zip(
            done.token_ids, texts, token_text.offsets(texts), values, strict=True
        ):
            if place >= len(done.text) and text:
                break  # the stop sequence begins here
            found.append(self._token(parsed, token, text, len(head) + place, number, top))
        return found

    def _token(
        self, parsed: ParsedRequest, token: int, text: str, place: int, value: float | None, top: Mapping[int, float]
    ) -> Token:
        listed: Mapping[int, float] = {}
        if value is not None:
            listed = {**top, token: value} if parsed.lists_itself else top
        likely = [
            Likely(name, number, self._bytes.of(one))
            for one, name, number in token_text.named(self._codec.tokenizer, listed)
        ]
        return Token(text, place, value, self._bytes.of(token), likely)

    def _completion(self, request: CompletionRequest) -> ParsedRequest:
        leading = self._leading if request.add_special_tokens and not _is_ids(request) else []
        prompts: list[list[int]] = []
        for prompt in request.prompts:
            ids = [*leading, *self._codec.encode(prompt)] if isinstance(prompt, str) else prompt
            prompts.append(self._checked(ids, request.max_tokens, "prompt"))
        heads = [""] * len(prompts)
        if request.echo:
            heads = [p if isinstance(p, str) else self._codec.decode(p) for p in request.prompts]
        return ParsedRequest(
            responses.Text(request.model),
            prompts,
            heads,
            self._params(
                request,
                request.max_tokens,
                tuple(request.stop),
                request.logprobs or 0,
                score_prompt=request.echo and request.logprobs is not None,
            ),
            request.n,
            request.logprobs,
            lists_itself=True,
            leading=len(leading),
            echo=request.echo,
            options=request.stream_options,
        )

    def _chat(self, request: ChatRequest) -> ParsedRequest:
        ids = self._conversation.tokens(request.messages)
        room = self._codec.max_length - len(ids)
        limit = request.limit or max(1, min(self._limits.max_tokens, room))
        logprobs = (request.top_logprobs or 0) if request.logprobs else None
        stop = tuple(dict.fromkeys((*request.stop, *self._conversation.stop)))
        return ParsedRequest(
            responses.Chat(request.model),
            [self._checked(ids, limit, "messages")],
            [""],
            self._params(request, limit, stop, logprobs or 0),
            request.n,
            logprobs,
            lists_itself=False,
            options=request.stream_options,
        )

    def _params(
        self, request: SamplingRequest, limit: int, stop: tuple[str, ...], top: int, score_prompt: bool = False
    ) -> SamplingParams:
        self._check_ids(list(request.logit_bias), "logit_bias")
        return SamplingParams(
            max_tokens=limit,
            temperature=request.temperature,
            top_p=request.top_p,
            top_k=request.top_k,
            min_p=request.min_p,
            presence_penalty=request.presence_penalty,
            frequency_penalty=request.frequency_penalty,
            repetition_penalty=request.repetition_penalty,
            logit_bias=request.logit_bias,
            stop=stop,
            seed=request.seed,
            ignore_eos=request.ignore_eos,
            top_logprobs=top,
            score_prompt=score_prompt,
        )

    def _checked(self, ids: Sequence[int], max_tokens: int, name: str) -> list[int]:
        if not ids:
            raise ApiError(400, f"{name} has no tokens", name)
        self._check_ids(ids, name)
        context = self._codec.max_length
        if len(ids) + max_tokens > context:
            message = f"{name} ({len(ids)} tokens) and max_tokens ({max_tokens}) exceed the context of {context}"
            raise ApiError(400, message, name, "context_length_exceeded")
        return list(ids)

    def _check_ids(self, ids: Sequence[int], name: str) -> None:
        size = self._codec.vocab_size
        wrong = next((token for token in ids if not 0 <= token < size), None)
        if wrong is not None:
            raise ApiError(400, f"{name}: token id {str(wrong)[:30]} is not in 0..{size - 1}", name)


def _is_ids(request: CompletionRequest) -> bool:
    return not isinstance(request.prompts[0], str)


def _leading(tokenizer: Any) -> list[int]:
    """What the tokenizer puts before every text, such as Llama's BOS. What it puts behind one would end the answer."""
    plain = list(tokenizer.encode("a", add_special_tokens=False))
    whole = list(tokenizer.encode("a"))
    for start in range(len(whole) - len(plain) + 1):
        if whole[start : start + len(plain)] == plain:
            return whole[:start]
    return []
