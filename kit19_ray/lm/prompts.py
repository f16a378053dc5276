"""Prompts: what stands around instruction and input in training, evaluation and serving alike.

A prompt is a named wrapper, or `chat`: the model's own chat template. Tokens of an example are those of its segments,
what is asked and what is answered in turn, encoded apart and without the tokenizer's additions, so that a served prompt
has exactly the tokens the model was trained on:

    wrapper   | prompt of turn 1 | answer 1 [eos] | prompt of turn 2 | answer 2 [eos] |
    chat      | <|user|> ... <|assistant|> | answer 1 <|end|> | <|user|> ... <|assistant|> | answer 2 <|end|> |

A wrapper has no beginning-of-text token, whatever the tokenizer would add; a chat template has what it spells out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypedDict

from kit19_ray.errors import ConfigError, nearest, quote
from kit19_ray.lm.text_encoder import TextEncoder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CHAT = "chat"
_PROBE = "x"  # an answer that no template changes


class PromptFields(TypedDict):
    """What a prompt is made of."""

    instruction: str
    input: str


class Message(TypedDict):
    """A turn of a conversation: role system, user or assistant."""

    role: str
    content: str


class Segment(NamedTuple):
    """A run of text that is learned, or is not."""

    text: str
    learned: bool


class Prompt(Protocol):
    """What a prompt has, whichever it is."""

    def render(self, instruction: str, input: str = "") -> str:
        """The text up to where the answer starts."""

    def segments(self, messages: Sequence[Message]) -> list[Segment]:
        """A conversation that ends with the assistant's turn, cut where what is learned begins and ends."""

    def answer(self, text: str) -> str:
        """What is learned of an answer, its end included where the prompt has one of its own."""

    @property
    def end(self) -> str | None:
        """What is learned behind an answer; None: the tokenizer's end-of-text token."""

    @property
    def stop(self) -> tuple[str, ...]:
        """Texts that would open a new turn, so that generation ends before them."""

    @property
    def is_templated(self) -> bool:
        """Whether its texts are what `TextEncoder.templated` reads; else they are text and nothing else."""


def encode_prompts(encoder: TextEncoder, prompt: Prompt, texts: Sequence[str]) -> list[list[int]]:
    """The ids of texts that `prompt` made: only the markers of a chat template become special tokens."""
    return encoder.templated(texts) if prompt.is_templated else encoder.text(texts)


def shown(prompt: Prompt, text: str) -> str:
    """A text that `prompt` made, as it reads."""
    return TextEncoder.shown(text) if prompt.is_templated else text


@dataclass(frozen=True)
class PromptFormat:
    """A wrapper with and without an input; `{instruction}` and `{input}` are filled in as plain text."""

    with_input: str
    without_input: str

    def render(self, instruction: str, input: str = "") -> str:
        """The text up to where the answer starts."""
        template = self.with_input if input else self.without_input
        head, _, rest = template.partition("{instruction}")
        middle, mark, tail = rest.partition("{input}")
        return head + instruction + middle + (input + tail if mark else "")

    def segments(self, messages: Sequence[Message]) -> list[Segment]:
        """Each exchange as a training example of its own; a system turn is the instruction of all, as in serving."""
        system = messages[0]["content"] if messages[0]["role"] == "system" else ""
        found = []
        for message in messages[1:] if system else messages:
            content = message["content"]
            if message["role"] == "assistant":
                found.append(Segment(content, True))
            else:
                found.append(Segment(self.render(system, content) if system else self.render(content), False))
        return found

    def answer(self, text: str) -> str:
        """The text."""
        return text

    @property
    def end(self) -> None:
        """Answers end with the tokenizer's end-of-text token."""
        return

    @property
    def is_templated(self) -> bool:
        """False: a wrapper has no special tokens."""
        return False

    @property
    def stop(self) -> tuple[str, ...]:
        """Texts that would open a new turn, so that generation ends before them."""
        return tuple(dict.fromkeys(line for line in self.with_input.splitlines() if line.startswith("###")))


PROMPTS: dict[str, PromptFormat] = {
    # Korean Alpaca as KULLM v2 published it (nlpai-lab/KULLM, templates/kullm.json).
    "kullm": PromptFormat(
        with_input=(
            "아래는 작업을 설명하는 명령어와 추가 컨텍스트를 제공하는 입력이 짝을 이루는 예제입니다. "
            "요청을 적절히 완료하는 응답을 작성하세요.\n\n"
            "### 명령어:\n{instruction}\n\n### 입력:\n{input}\n\n### 응답:\n"
        ),
        without_input=(
            "아래는 작업을 설명하는 명령어입니다. 요청을 적절히 완료하는 응답을 작성하세요.\n\n"
            "### 명령어:\n{instruction}\n\n### 응답:\n"
        ),
    ),
    # KoAlpaca v1.1 on Polyglot-Ko (Beomi/KoAlpaca, train_v1.1b).
    "koalpaca": PromptFormat(
        with_input="### 질문: {instruction}\n\n### 맥락: {input}\n\n### 답변:",
        without_input="### 질문: {instruction}\n\n### 답변:",
    ),
    # No wrapper: for models that are only ever scored on raw continuations, and for short sequences on a CPU.
    "plain": PromptFormat(with_input="{instruction}\n{input}\n", without_input="{instruction}\n"),
}


class ChatPrompt:
    """A tokenizer's own chat template as a prompt; the user's turn is the instruction, an empty line, and the input.

    What is asked and answered is quoted (see `TextEncoder`) before the template is put round it.

    Raises:
        ConfigError: there is no template, or it is not one a conversation can be learned from: what it makes of the
            first turns must be the beginning of what it makes of all.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, key: str = "data.prompt") -> None:
        self._tokenizer, self._encoder = tokenizer, TextEncoder(tokenizer)
        if not tokenizer.chat_template:
            raise ConfigError(
                f"{key}=chat: the tokenizer {quote(tokenizer.name_or_path)} has no chat template",
                hint=f"name an instruct model's tokenizer, or one of the wrappers: {', '.join(PROMPTS)}",
            )
        turns: list[Message] = [{"role": "user", "content": _PROBE}, {"role": "assistant", "content": _PROBE}]
        asked, whole = self._text(turns[:1], True), self._text(turns, False)
        if not whole.startswith(asked + _PROBE):
            raise ConfigError(
                f"{key}=chat: the chat template writes a question another way once it is answered, so no prompt "
                "would be what was learned",
                hint=f"use one of the wrappers: {', '.join(PROMPTS)}",
            )
        # Spaces behind the last special token belong to the next turn: a model that has ended writes no more.
        self._end = whole[len(asked + _PROBE) :].rstrip()

    def render(self, instruction: str, input: str = "") -> str:
        """The text up to where the answer starts."""
        asked = f"{instruction}\n\n{input}" if input else instruction
        return self._text([{"role": "user", "content": self._encoder.quoted(asked)}], True)

    def answer(self, text: str) -> str:
        """The text and what the template writes behind it."""
        return self._encoder.quoted(text) + self._end

    def segments(self, messages: Sequence[Message]) -> list[Segment]:
        """The rendered conversation; learned is each answer with what ends it.

        Raises:
            ConfigError: the template does not take these turns, or changes earlier ones.
        """
        found: list[Segment] = []
        turns: list[Message] = [{"role": m["role"], "content": self._encoder.quoted(m["content"])} for m in messages]
        whole, done = self._text(turns, False), 0
        for place, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            asked = self._text(turns[:place], True)
            answer = self.answer(message["content"])
            if not (whole.startswith(asked) and whole.startswith(answer, len(asked))):
                raise ConfigError("data.prompt=chat: the chat template changes the turns of a longer conversation, "
                                  "such as leaving out what was thought")  # fmt: skip
            found += [Segment(whole[done : len(asked)], False), Segment(answer, True)]
            done = len(asked) + len(answer)
        return found

    @property
    def end(self) -> str | None:
        """What the template writes behind an answer; None where it writes nothing."""
        return self._end or None

    @property
    def stop(self) -> tuple[str, ...]:
        """The end of a turn, where that is not the tokenizer's end-of-text token."""
        return () if self._end in ("", self._tokenizer.eos_token) else (self._end,)

    @property
    def is_templated(self) -> bool:
        """True: its markers are special tokens."""
        return True

    def _text(self, messages: Sequence[Message], asks: bool) -> str:
        from jinja2 import TemplateError

        try:
            turns: Any = list(messages)
            return str(self._tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=asks))
        except TemplateError as error:  # a template refuses turns by raising one
            raise ConfigError(f"data.prompt=chat: the chat template says: {str(error)[:200]}") from None


def check_prompt(name: str, key: str = "data.prompt") -> None:
    """Raises ConfigError: there is no prompt called `name`."""
    if name != CHAT:
        prompt_format(name, key)


def load_prompt(name: str, tokenizer: PreTrainedTokenizerBase, key: str = "data.prompt") -> Prompt:
    """The prompt called `name`, of a model with this tokenizer.

    Raises:
        ConfigError: there is none, or the tokenizer has no usable chat template.
    """
    return ChatPrompt(tokenizer, key) if name == CHAT else prompt_format(name, key)


def prompt_format(name: str, key: str = "data.prompt") -> PromptFormat:
    """The wrapper called `name`.

    Args:
        key: the config key that names it, for the message.

    Raises:
        ConfigError: there is none.
    """
    if name not in PROMPTS:
        known = [*PROMPTS, CHAT]
        raise ConfigError(f"{key}: {quote(name)} is not one of {', '.join(known)}{nearest(name, known)}")
    return PROMPTS[name]


def fit_prompt(
    encode: Callable[[str], Sequence[int]],
    prompt: Prompt,
    row: PromptFields,
    room: int,
    ids: Sequence[int] | None = None,
) -> list[int] | None:
    """The prompt's tokens, the end of a long input left out so that there are at most `room`; the instruction is whole.

    Training, held-out scoring and serving cut by this one rule, so a model is asked as it was taught.

    Args:
        encode: text -> ids, without special tokens.
        ids: the whole prompt's tokens, where the caller has them already (of a batch).

    Returns:
        None when even the instruction alone has no room, or there is nothing to ask.
    """
    if ids is None:
        ids = encode(prompt.render(row["instruction"], row["input"]))
    text = row["input"]
    while len(ids) > room:
        # A cut moves the token boundaries a little, so this takes a second turn at times. Each turn takes at least one
        # character, and about as many as the surplus tokens stand for.
        per_token = max(1, len(text) // max(1, len(ids)))
        text = text[: max(0, len(text) - max(1, (len(ids) - room) * per_token))].rstrip()
        if not text:
            return None  # a row with an input is never asked without it
        ids = encode(prompt.render(row["instruction"], text))
    return list(ids) or None
