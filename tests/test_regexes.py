"""Every regular expression of the package against a hostile line of a megabyte.

Found in the source, so that a new one is tried too. The lines are made from the expression itself: each part that may
repeat is repeated, and each beginning is begun again and again, before an end that does not match. An expression that
is linear needs some hundredths of a second; one that is not would need hours, and is ended by a timer of this process's
own computing time, which is no measure but a guard.
"""

from __future__ import annotations

import ast
import re
import re._constants as sre  # type: ignore[import-not-found]
import re._parser as parser  # type: ignore[import-not-found]
import signal
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import kit19_ray

PACKAGE = Path(kit19_ray.__file__).parent
SIZE = 1 << 20
GUARD = 20.0  # seconds of computing
_ANYWHERE = ("search", "sub", "subn", "split", "findall", "finditer")
# Never asked of more than a few hundred characters, for the reason that stands here.
BOUNDED = {"tasks/josa.py:_NUMBER": "of a word's last 40 characters"}


def patterns() -> Iterator[tuple[str, re.Pattern[Any], bool]]:
    """Name, expression, and whether it looks anywhere in a text or at its start alone."""
    for path in sorted(PACKAGE.rglob("*.py")):
        source = path.read_text(encoding="utf-8")
        if "re." not in source:
            continue
        name, known = path.relative_to(PACKAGE).as_posix(), dict[str, Any](re=re)
        tree = ast.parse(source)
        for node in tree.body:  # constants that expressions are put together from
            if isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None:
                target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
                try:
                    known[ast.unparse(target)] = eval(ast.unparse(node.value), known)
                except Exception:  # noqa: BLE001, S112 - not a constant
                    continue
        for key, found in known.items():
            if isinstance(found, re.Pattern):
                yield f"{name}:{key}", found, bool(re.search(rf"\b{key}\.({'|'.join(_ANYWHERE)})\b", source))
        for call in ast.walk(tree):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.args:
                made = ast.unparse(call.func)
                if made.startswith("re.") and made[3:] in (*_ANYWHERE, "match", "fullmatch"):
                    try:
                        text = eval(ast.unparse(call.args[0]), known)
                    except Exception:  # noqa: BLE001, S112 - put together at run time
                        continue
                    yield f"{name}:{call.lineno}", re.compile(text), made[3:] in _ANYWHERE


FOUND = {name: (pattern, anywhere) for name, pattern, anywhere in patterns()}


def _letter(kind: Any, value: Any) -> str:
    """A character that one item of an expression matches."""
    if kind is sre.LITERAL:
        return chr(value)
    if kind is sre.NOT_LITERAL:
        return "b" if value == ord("a") else "a"
    if kind is sre.ANY:
        return "a"
    classes = {sre.CATEGORY_DIGIT: "0", sre.CATEGORY_SPACE: " ", sre.CATEGORY_WORD: "a", sre.CATEGORY_NOT_SPACE: "a",
               sre.CATEGORY_NOT_DIGIT: "a", sre.CATEGORY_NOT_WORD: " "}  # fmt: skip
    if value and value[0][0] is sre.NEGATE:
        pattern = re.compile("[" + "".join(_shown(item) for item in value[1:]) + "]")
        return next(c for c in "a 0-.,/\"'<>()[]가\né漢" if not pattern.match(c))
    first, what = value[0]
    return classes.get(what, "a") if first is sre.CATEGORY else chr(what[0] if first is sre.RANGE else what)


def _shown(item: Any) -> str:
    kind, value = item
    if kind is sre.CATEGORY:
        return {"CATEGORY_DIGIT": r"\d", "CATEGORY_SPACE": r"\s", "CATEGORY_WORD": r"\w", "CATEGORY_NOT_SPACE": r"\S",
                "CATEGORY_NOT_WORD": r"\W", "CATEGORY_NOT_DIGIT": r"\D"}[str(value)]  # fmt: skip
    return "-".join(re.escape(chr(code)) for code in (value if kind is sre.RANGE else (value,)))


def _sample(items: Any) -> str:
    """A short text that these items match."""
    out = ""
    for kind, value in items:
        if kind in (sre.MAX_REPEAT, sre.MIN_REPEAT, sre.POSSESSIVE_REPEAT):
            out += _sample(value[2]) * max(1, value[0]) if value[1] else ""
        elif kind is sre.SUBPATTERN:
            out += _sample(value[3])
        elif kind is sre.ATOMIC_GROUP:
            out += _sample(value)
        elif kind is sre.BRANCH:
            out += _sample(value[1][0])
        elif kind in (sre.LITERAL, sre.NOT_LITERAL, sre.ANY, sre.IN):
            out += _letter(kind, value)
    return out


def _bodies(items: Any, before: str = "") -> Iterator[tuple[str, str]]:
    """What stands before each part that may repeat without end, and the part."""
    for place, (kind, value) in enumerate(items):
        here = before + _sample(list(items)[:place])
        if kind in (sre.MAX_REPEAT, sre.MIN_REPEAT, sre.POSSESSIVE_REPEAT):
            if value[1] > 100:
                yield here, _sample(value[2])
            yield from _bodies(value[2], here)
        elif kind is sre.SUBPATTERN:
            yield from _bodies(value[3], here)
        elif kind is sre.ATOMIC_GROUP:
            yield from _bodies(value, here)
        elif kind is sre.BRANCH:
            for branch in value[1]:
                yield from _bodies(branch, here)


def attacks(pattern: re.Pattern[Any]) -> Iterator[str]:
    """Lines of about a megabyte."""
    tree = parser.parse(pattern.pattern, pattern.flags & ~re.DEBUG)
    seen = set()
    for before, body in _bodies(tree):
        for start, pump in ((before, body), ("", before + body), ("", before or body)):
            if pump and (start, pump) not in seen:
                seen.add((start, pump))
                yield start + pump * (SIZE // len(pump)) + "\x01"


def _over(number: int, frame: FrameType | None) -> None:
    raise TimeoutError


@pytest.mark.parametrize("name", sorted(set(FOUND) - set(BOUNDED)))
def test_a_hostile_line_costs_bounded_work(name: str) -> None:
    pattern, anywhere = FOUND[name]
    before = signal.signal(signal.SIGVTALRM, _over)
    try:
        for line in attacks(pattern):
            given: Any = line.encode() if isinstance(pattern.pattern, bytes) else line
            signal.setitimer(signal.ITIMER_VIRTUAL, GUARD)
            for _ in pattern.finditer(given) if anywhere else (pattern.match(given), pattern.fullmatch(given)):
                pass
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    except TimeoutError:
        pytest.fail(f"{name}: {pattern.pattern!r} does not end on {line[:60]!r}...{line[-10:]!r}")
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def test_the_guard_finds_what_it_is_for() -> None:
    for bad in (r"(a+)+$", r"<doc [^>]*>", r"\s+$", r"(\d+,)*x\d+y"):
        line = max(attacks(re.compile(bad)), key=len)
        assert len(line) >= SIZE // 2
    assert len(FOUND) > 40 and all(reason for reason in BOUNDED.values())


def test_what_is_said_to_be_bounded_exists() -> None:
    assert set(BOUNDED) <= set(FOUND)
