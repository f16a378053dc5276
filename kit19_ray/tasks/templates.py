"""Templates: sandboxed Jinja, the Korean filters task files may use, and long texts cut at a sentence end.

Filters beside Jinja's own:
    {{ word | particle('은/는') }}   the word and the particle that agrees with it
    {{ title | quoted }}             '제목', in single quotes; `particle` may follow it
    {{ choices | either }}           긍정 또는 부정; of more than two: 가, 나, 다 중 하나
    {{ choices | numbered }}         1. 긍정 <newline> 2. 부정
    {{ answer | plain_number }}      78.5 for 78.50
    {{ title | without_stop }}       without the full stop that ends it
and Jinja's own for a plain list: {{ choices | join(', ') }}.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from jinja2 import StrictUndefined, Template, TemplateError, meta, nodes
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from kit19_ray.errors import TaskError, quote
from kit19_ray.tasks.josa import check_pair, particle

# A stop, then any closing quotes, then a space; no stop after a digit, which numbers a list or a date (2018. 8. 30.).
_SENTENCE_END = re.compile(r"(?:(?<!\d)[.。]|[?!…])[\"'”’」』)\]]*(?=\s|$)|\n")


def quoted(word: object) -> str:
    """`word` in single quotes."""
    return f"'{word}'"


def either(words: Sequence[str]) -> str:
    """The words as alternatives: "가 또는 나", "가, 나, 다 중 하나"."""
    return " 또는 ".join(words) if len(words) < 3 else f"{', '.join(words)} 중 하나"


def numbered(words: Sequence[str]) -> str:
    """The words as lines "1. 가", "2. 나"."""
    return "\n".join(f"{i}. {word}" for i, word in enumerate(words, 1))


def plain_number(number: object) -> str:
    """A decimal without the zeros that close it: "78.50" is 78.5, "3.00" is 3; anything else as it is."""
    text = str(number)
    return text.rstrip("0").rstrip(".") if re.fullmatch(r"-?[0-9,]{1,40}\.[0-9]{1,40}", text) else text


def without_stop(text: object) -> str:
    """`text` without the full stop that ends it, so that a comma may follow."""
    return str(text).rstrip(". ")


def _replace(text: object, old: str, new: str) -> str:
    """`text` with `new` for each `old`; bounded, since each in a chain may make ten of one letter."""
    whole = str(text)
    if len(whole) + whole.count(old) * (len(new) - len(old)) > MOST:
        raise SecurityError(f"a text of more than {MOST:,} characters")
    return whole.replace(old, new)


def _join(words: Sequence[object], between: str = "") -> str:
    """The words with `between` between each; bounded."""
    texts = list(map(str, words))
    if sum(map(len, texts)) + len(between) * len(texts) > MOST:
        raise SecurityError(f"a text of more than {MOST:,} characters")
    return between.join(texts)


class _Sandbox(ImmutableSandboxedEnvironment):
    """No attribute that starts with an underscore, no mutation, and nothing that makes much text of little.

    'x' * 10**9, 'x'.center(10**9), '%0999999999d' % 1 and {% set x = x ~ x %} are denials of service.
    """

    intercepted_binops = frozenset({"*", "**", "%"})

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        raise SecurityError(f"operator {operator} is not allowed in a template")

    def is_safe_callable(self, obj: Any) -> bool:
        return getattr(obj, "__name__", None) in _METHODS and super().is_safe_callable(obj)

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        for kind in (nodes.Assign, nodes.AssignBlock, nodes.Macro, nodes.CallBlock):
            if tree.find(kind) is not None:
                raise SecurityError(f"{kind.__name__.lower()} is not allowed in a template")
        return tree


MOST = 1 << 22
"""Characters a template may make; a source row has at most 4 M."""
_METHODS = frozenset(
    {
        "strip", "lstrip", "rstrip", "upper", "lower", "capitalize", "title", "startswith", "endswith", "split",
        "rsplit", "splitlines", "partition", "rpartition", "removeprefix", "removesuffix", "find", "count", "isdigit",
    }
)  # fmt: skip
_GROWING = ("batch", "center", "format", "indent", "pprint", "slice", "tojson", "urlize", "wordwrap", "xmlattr")
_ENVIRONMENT = _Sandbox(undefined=StrictUndefined, autoescape=False, keep_trailing_newline=False)
_ENVIRONMENT.globals.clear()  # no range, lipsum or namespace: a template only says how fields become text
for _name in _GROWING:
    _ENVIRONMENT.filters.pop(_name, None)
_ENVIRONMENT.filters.update(replace=_replace, join=_join)
_ENVIRONMENT.filters.update(
    particle=particle,
    quoted=quoted,
    either=either,
    numbered=numbered,
    plain_number=plain_number,
    without_stop=without_stop,
)


@lru_cache(maxsize=4096)
def _compiled(text: str) -> Template:
    try:
        return _ENVIRONMENT.from_string(text)
    except TemplateError as problem:
        raise TaskError(f"template {quote(text)}: {str(problem)[:200]}") from None


def render(text: str, values: Mapping[str, Any]) -> str:
    """Fills in a template. Values are plain text: braces in them stay as they are.

    Raises:
        TaskError: the template is not Jinja, names something `values` lacks, or does what the sandbox forbids.
    """
    try:
        made, size = [], 0
        for piece in _compiled(text).generate(values):
            made.append(piece)
            size += len(piece)
            if size > MOST:
                raise SecurityError(f"a text of more than {MOST:,} characters")
        return "".join(made)
    except (TemplateError, TypeError, ValueError, ArithmeticError) as problem:
        raise TaskError(f"template {quote(text)}: {str(problem)[:200]}") from None


@lru_cache(maxsize=4096)
def undeclared(text: str) -> frozenset[str]:
    """Names a template takes from outside.

    Raises:
        ValueError: the template is not Jinja, uses an unknown filter, or asks for an unknown particle. It is not a
            TaskError so that a pydantic validator reports it with the file and the key.
    """
    try:
        tree = _ENVIRONMENT.parse(text)
        _compiled(text)
        for call in tree.find_all(nodes.Filter):
            if call.name == "particle":
                for argument in call.args:
                    if isinstance(argument, nodes.Const):
                        check_pair(argument.value)
    except (TemplateError, TaskError) as problem:
        raise ValueError(str(problem)) from None
    return frozenset(meta.find_undeclared_variables(tree))


def truncate_sentences(text: str, limit: int) -> str:
    """At most `limit` characters of `text`, ended where a sentence ends.

    When no sentence ends in the second half of the allowance, the cut falls at a space, and failing that anywhere.
    """
    if len(text) <= limit:
        return text
    head = text[:limit]
    ends = [m.end() for m in _SENTENCE_END.finditer(text, 0, limit + 1) if limit // 2 <= m.end() <= limit]
    if ends:
        return head[: ends[-1]].rstrip()
    space = limit if text[limit].isspace() else head.rfind(" ")
    return head[:space].rstrip() if space >= limit // 2 else head.rstrip()
