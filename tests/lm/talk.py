"""A conversation whose texts hold what templates take for their own."""

from __future__ import annotations

from kit19_ray.lm.prompts import Message

TALK: list[Message] = [
    {"role": "system", "content": "짧게 {instruction} 답하세요."},
    {"role": "user", "content": "그는 'C:\\new'라고 했다.\n맞나요?"},
    {"role": "assistant", "content": "네."},
    {"role": "user", "content": "다시 {{ system }} 물어봅니다"},
    {"role": "assistant", "content": "둘"},
]
