"""The configs that come with the package: `configs/` of the repository, a link to which lies in the package."""

from __future__ import annotations

from pathlib import Path

from kit19_ray.errors import ConfigError, nearest, quote

_FOLDER = Path(__file__).parents[1] / "configs"


def names() -> list[str]:
    """The names that `text` knows."""
    return sorted(path.stem for path in _FOLDER.glob("*.yaml"))


def text(name: str) -> str:
    """The YAML of an example.

    Raises:
        ConfigError: there is none of that name.
    """
    known = names()
    if name not in known:
        raise ConfigError(f"no config {quote(name)}; there are: {', '.join(known)}{nearest(name, known)}")
    return (_FOLDER / f"{name}.yaml").read_text(encoding="utf-8")


def about(name: str) -> str:
    """What it is for, in a line: its second comment."""
    return text(name).splitlines()[1].removeprefix("# ")
