"""Prompt wrappers: what stands around instruction and input in training, evaluation and serving alike.

Tokens of an example are `encode(prompt) + encode(output) + [eos]`, the two parts encoded apart and without special
tokens, so that a served prompt has exactly the tokens the model was trained on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypedDict

from kit19_ray.errors import ConfigError, nearest


class PromptFields(TypedDict):
    """What a prompt is made of."""

    instruction: str
    input: str


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


def prompt_format(name: str, key: str = "data.prompt") -> PromptFormat:
    """The wrapper called `name`.

    Args:
        key: the config key that names it, for the message.

    Raises:
        ConfigError: there is none.
    """
    if name not in PROMPTS:
        raise ConfigError(f"{key}: {name!r} is not one of {', '.join(PROMPTS)}{nearest(name, PROMPTS)}")
    return PROMPTS[name]


def render_prompt(name: str, instruction: str, input: str = "") -> str:
    """The text of a prompt up to where the answer starts."""
    return prompt_format(name).render(instruction, input)


def fit_prompt(
    encode: Callable[[str], Sequence[int]],
    prompt: PromptFormat,
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
