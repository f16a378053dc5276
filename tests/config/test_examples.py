"""The configs that come with the package: printed as they lie in `configs/`, each one loads."""

from __future__ import annotations

from pathlib import Path

import pytest

from kit19_ray.config import examples, loading
from kit19_ray.errors import ConfigError

CONFIGS = Path(__file__).parents[2] / "configs"


def test_they_are_the_repositorys() -> None:
    assert examples.names() == sorted(path.stem for path in CONFIGS.glob("*.yaml"))
    assert examples.text("demo") == (CONFIGS / "demo.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", examples.names())
def test_each_says_what_it_is_for_and_loads(name: str, tmp_path: Path) -> None:
    assert examples.about(name).endswith(".")
    path = tmp_path / "mine.yaml"
    path.write_text(examples.text(name), encoding="utf-8")
    assert loading.load(str(path), [f"root={tmp_path}"]).root == tmp_path.as_uri()


def test_an_unknown_one_is_named_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"no config 'dmeo'; there are: .*demo, .* \(did you mean 'demo'\?\)"):
        examples.text("dmeo")
