"""Which extra a verb needs, read off the installed package's own metadata: what is not installed is said by name."""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Iterator

from kit19_ray.errors import UserError

_NAME = "kit19-ray"
# Packages whose modules have another name than they have.
_MODULES = {"sklearn": "scikit-learn"}


def require(extra: str, what: str) -> None:
    """Checks that all packages of an extra are installed.

    Args:
        what: the verb, for the message.

    Raises:
        UserError: some are not.
    """
    absent = [name for name in packages(extra) if not _installed(name)]
    if absent:
        raise UserError(
            f"{what} needs the extra {extra!r}, of which {_few(absent)} is not installed", hint=_hint(extra)
        )


def missing_module(error: BaseException) -> UserError | None:
    """The message for an import that failed because an extra is not installed; None for any other error."""
    if not isinstance(error, ModuleNotFoundError) or not error.name:
        return None
    module = error.name.partition(".")[0]
    wanted = _normal(_MODULES.get(module, module))
    for extra in _extras():
        if wanted in packages(extra):
            return UserError(f"this needs {wanted}, of the extra {extra!r}, which is not installed", hint=_hint(extra))
    return None


def packages(extra: str) -> list[str]:
    """Names of the packages of an extra, those of the extras it takes in included; none where nothing is installed."""
    found: dict[str, None] = {}
    for name, inner in _requirements(extra):
        if name == _NAME:
            for part in inner:
                found |= dict.fromkeys(packages(part))
        else:
            found[name] = None
    return list(found)


def _requirements(extra: str) -> Iterator[tuple[str, list[str]]]:
    """(package, its own extras) of each requirement of one of our extras."""
    for line in _metadata("requires"):
        requirement, _, marker = line.partition(";")
        if re.search(rf"extra == ['\"]{re.escape(extra)}['\"]", marker):
            found = re.match(r"\s*([A-Za-z0-9._-]+)\s*(?:\[([^\]]*)\])?", requirement)
            assert found is not None
            yield _normal(found[1]), [part.strip() for part in (found[2] or "").split(",") if part.strip()]


def _extras() -> list[str]:
    """Every extra, those with the fewest packages first: the narrowest that helps is the one to name."""
    return sorted((name for name in _metadata("extras")), key=lambda name: len(packages(name)))


def _metadata(what: str) -> list[str]:
    try:
        read = importlib.metadata.distribution(_NAME)
    except importlib.metadata.PackageNotFoundError:  # run from a folder: there is nothing to say
        return []
    return list(read.requires or []) if what == "requires" else read.metadata.get_all("Provides-Extra") or []


def _installed(name: str) -> bool:
    try:
        importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _few(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:3])}{'' if len(names) <= 3 else ', ...'}"


def _hint(extra: str) -> str:
    return f"pip install '{_NAME}[{extra}]'"
