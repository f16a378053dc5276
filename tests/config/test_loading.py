from __future__ import annotations

from pathlib import Path

import pytest

from kit19_ray.config import loading
from kit19_ray.errors import ConfigError

ROOT = "root=file:///r"


def test_file_overrides_and_environment_in_this_order(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("seed: 3\ntrain:\n  epochs: 4\n", encoding="utf-8")
    config = loading.load(str(path), ["train.epochs=1.5", "data.quotas.nsmc=7"], {"KIT19_ROOT": "/r/"})
    assert (config.seed, config.train.epochs, config.data.quotas, config.root) == (3, 1.5, {"nsmc": 7}, "file:///r")


def test_every_mistake_is_reported_at_once_with_the_nearest_name(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("seed: -1\ntrain:\n  epoch: 4\n  zero_stage: 5\n", encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        loading.load(str(path), [ROOT])
    text = str(caught.value)
    assert "c.yaml: 3 mistakes" in text
    assert "train.epoch: unknown key (did you mean 'epochs'?)" in text
    assert "seed: " in text and "got -1" in text
    assert "train.zero_stage: " in text and "got 5" in text


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("train.epochs", "an override is key.sub=value"),
        ("seed.x.y=1", "seed: "),
        ("train.model.heads=7", "heads=7 does not divide hidden_size=256"),
        ("data.tokeniser.name=x", "did you mean 'tokenizer'?"),
    ],
)
def test_bad_overrides(word: str, said: str) -> None:
    with pytest.raises(ConfigError, match="(?s)" + __import__("re").escape(said)):
        loading.load(None, [ROOT, word])


def test_a_missing_file_names_its_neighbour(tmp_path: Path) -> None:
    (tmp_path / "demo.yaml").write_text("", encoding="utf-8")
    with pytest.raises(ConfigError, match="did you mean 'demo.yaml'"):
        loading.load(str(tmp_path / "dmeo.yaml"))


def test_yaml_traps_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("seed: 1\nseed: 2\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="'seed' stands twice"):
        loading.load(str(path), [ROOT])
    path.write_text("yes: 1\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="write it in quotes"):
        loading.load(str(path), [ROOT])


def test_no_root_says_how_to_give_one() -> None:
    with pytest.raises(ConfigError, match="KIT19_ROOT"):
        loading.load(None, [], {})
    assert loading.load(None, [], {}, needs_root=False).root == ""
    assert loading.load(None, [], {"KIT19_ROOT": "/r"}, needs_root=False).root == "file:///r"


def test_runtime_fields_do_not_change_the_identity() -> None:
    base = loading.load(None, [ROOT]).train
    assert loading.load(None, [ROOT, "train.workers=4"]).train.identity() == base.identity()
    assert loading.load(None, [ROOT, "train.epochs=9"]).train.identity() != base.identity()
    assert loading.load(None, [ROOT, "train.model.layers=9"]).train.identity() != base.identity()


def test_root_alone_comes_from_the_file_or_the_environment(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("root: s3://bucket/runs/\n")
    assert loading.root(str(tmp_path / "run.yaml"), {"KIT19_ROOT": "/elsewhere"}) == "s3://bucket/runs"
    assert loading.root(None, {"KIT19_ROOT": "/elsewhere"}) == "file:///elsewhere"
    assert loading.root(None, {}) is None
