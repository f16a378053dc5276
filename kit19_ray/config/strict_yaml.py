"""YAML 1.2 without traps: text keys only, none of them twice, aliases that stay small, errors with file and line.

In YAML 1.2 `yes`, `no`, `on` and `off` are text. Merge keys (`<<: *base`) are honoured.
"""

from __future__ import annotations

import codecs
from collections.abc import Container
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from kit19_ray.errors import ConfigError, UserError, quote
from kit19_ray.utils.json_types import Json

MAX_BYTES = 16 << 20  # of a file; the largest of ours has 60 kB
MAX_VALUES = 100_000  # in a file, each alias counted as what it stands for: a few lines can mean billions
_TEXT, _MERGE = "tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def decode(content: bytes, name: str, error: type[UserError] = ConfigError) -> str:
    """The text of a file that must be UTF-8; its byte order mark, if it has one, is dropped.

    Raises:
        error: it is not UTF-8; which byte and line, and what it seems to be.
    """
    try:
        return content.removeprefix(codecs.BOM_UTF8).decode()
    except UnicodeDecodeError as problem:
        at = problem.start + (len(codecs.BOM_UTF8) if content.startswith(codecs.BOM_UTF8) else 0)
    line = content.count(b"\n", 0, at) + 1
    raise error(
        f"{name}:{line}: byte {at + 1:,} (0x{content[at]:02x}) is not UTF-8{_guess(content)}",
        hint=f"save it as UTF-8; from CP949 with: iconv -f cp949 -t utf-8 {name}",
    )


def _guess(content: bytes) -> str:
    if content.startswith(_UTF16) or b"\0" in content[:2]:
        return "; it seems to be UTF-16"
    try:
        content.decode("cp949")
    except UnicodeDecodeError:
        return ""
    return "; it seems to be CP949 (EUC-KR)"


def parse(
    content: str | bytes, name: str, error: type[UserError] = ConfigError, known: Container[str] | None = None
) -> Json:
    """The mapping in a file; an empty document is an empty mapping.

    Args:
        name: the file's name for messages.
        error: class of the error raised.
        known: the keys of the outermost mapping that mean something. One that is not among them, but has an anchor that
            is used elsewhere (`base: &base {...}`), only holds values for that place and is left out.
    """
    if isinstance(content, bytes):
        if len(content) > MAX_BYTES:
            raise error(f"{name}: more than {MAX_BYTES >> 20} MiB, too much for YAML of this kind")
        content = decode(content, name, error)
    try:
        loaded, holders = _load(content)
    except _Refused as problem:
        raise error(f"{name}:{problem.line}: {problem.text}") from None
    except RecursionError:
        raise error(f"{name}: nested too deep") from None
    except MarkedYAMLError as problem:
        mark = problem.problem_mark or problem.context_mark
        where = f"{name}:{mark.line + 1}" if mark else name
        reason = problem.problem or problem.context or "unreadable"
        raise error(f"{where}: not YAML: {quote(reason, plain=True)}") from None
    except (YAMLError, ValueError) as problem:
        raise error(f"{name}: not YAML: {quote(str(problem), plain=True)}") from None
    if loaded is None:
        return {}
    if not isinstance(loaded, dict):
        raise error(f"{name}: expected `key: value` lines, found a {type(loaded).__name__}")
    return {key: value for key, value in loaded.items() if known is None or key in known or key not in holders}


def value(text: str) -> Any:
    """What a word of the command line means as YAML; the word itself when it is none."""
    try:
        return _load(text)[0]
    except (YAMLError, ValueError, RecursionError, _Refused):  # text with a colon, a bracket, ...
        return text


class _Refused(Exception):
    """YAML that is well formed and not what we read."""

    def __init__(self, node: Node, text: str) -> None:
        super().__init__(text)
        self.line, self.text = node.start_mark.line + 1, text


def _load(content: str) -> tuple[Any, set[str]]:
    """The value, and the outermost keys whose values are used elsewhere by an alias."""
    yaml = YAML(typ="safe", pure=True)  # the C parser reads YAML 1.1
    constructor, parser = yaml.get_constructor_parser(content)
    try:
        node = constructor.composer.get_single_node()
        if node is None:
            return None, set()
        uses = _check(node)
        holders = set()
        if isinstance(node, MappingNode):
            holders = {key.value for key, held in node.value if uses.get(id(held), 0) > 1}
        return constructor.construct_document(node), holders
    finally:
        parser.dispose()


def _check(root: Node) -> dict[int, int]:
    """How often each node is used, by its id.

    Raises:
        _Refused: a key that is no text or stands twice, a value within itself, too many values.
    """
    uses: dict[int, int] = {}
    sizes: dict[int, int] = {}  # values below a node, aliases counted as what they stand for
    open_nodes: set[int] = set()

    def visit(node: Node) -> int:
        uses[id(node)] = uses.get(id(node), 0) + 1
        if id(node) in open_nodes:
            raise _Refused(node, "a value holds itself by an alias")
        if id(node) in sizes:
            return sizes[id(node)]
        open_nodes.add(id(node))
        size = 1
        if isinstance(node, SequenceNode):
            size += sum(map(visit, node.value))
        elif isinstance(node, MappingNode):
            _check_keys(node)
            size += sum(visit(held) for _, held in node.value)
        open_nodes.discard(id(node))
        if size > MAX_VALUES:
            raise _Refused(node, f"aliases make more than {MAX_VALUES:,} values of this")
        sizes[id(node)] = size
        return size

    visit(root)
    return uses


def _check_keys(node: MappingNode) -> None:
    seen: set[str] = set()
    for key, _ in node.value:
        if key.tag == _MERGE:
            continue
        if not isinstance(key, ScalarNode) or key.tag != _TEXT:
            shown = key.value if isinstance(key, ScalarNode) else "{...}"
            raise _Refused(key, f"key {quote(shown, plain=True)} is not text: write it in quotes")
        if key.value in seen:
            raise _Refused(key, f"key {quote(key.value)} stands twice")
        seen.add(key.value)
