from __future__ import annotations

import os
import subprocess
import sys
import threading
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
    path.write_text("1: 1\n", encoding="utf-8")
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


@pytest.mark.parametrize("path", ["-", "/dev/stdin", "/dev/fd/0"])
def test_a_config_comes_from_standard_input(path: str) -> None:
    code = f"from kit19_ray.config import loading; print(loading.load({path!r}, ['root=/r']).seed)"
    done = subprocess.run([sys.executable, "-c", code], input="seed: 7\n", capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("7\n", "")


def test_a_config_comes_from_a_named_pipe(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=("seed: 8\n",))
    writer.start()
    assert loading.load(str(pipe), [ROOT]).seed == 8
    writer.join()


def test_what_cannot_be_read_is_said_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^--config \S+: this is a folder, not a file$"):
        loading.load(str(tmp_path))
    with pytest.raises(ConfigError, match="cannot be read: Not a directory"):
        loading.load("/dev/null/x.yaml")
    with pytest.raises(ConfigError, match="cannot be read: embedded null"):
        loading.load("a\0b")
    with pytest.raises(ConfigError, match=r"^--config /dev/zero: cannot|^/dev/zero: more than 16 MiB"):
        loading.load("/dev/zero")


def test_a_config_in_cp949_is_one_message_and_merge_keys_are_merged(tmp_path: Path) -> None:
    path = tmp_path / "한글 이름.yaml"
    path.write_bytes("# 우리 설정\nroot: /r\n".encode("cp949"))
    with pytest.raises(ConfigError, match=r"한글 이름.yaml:1: byte 3 \(0xbf\) is not UTF-8; it seems to be CP949"):
        loading.load(str(path))
    path.write_text("shared: &shared {learning_rate: 1.0e-3}\ntrain:\n  <<: *shared\n  batch_size: 8\n", "utf-8")
    train = loading.load(str(path), [ROOT]).train
    assert (train.learning_rate, train.batch_size) == (1e-3, 8)


def test_long_values_are_quoted_in_part() -> None:
    for word in (
        f"seed={'x' * 10_000}",
        f"{'k' * 10_000}=1",
        f"data.quota={'9' * 4000}x",
        "y" * 10_000,
        f"seed.{'z' * 9999}=1",
    ):
        with pytest.raises(ConfigError) as caught:
            loading.load(None, [ROOT, word])
        assert max(map(len, str(caught.value).splitlines())) < 1000


@pytest.mark.real_data
def test_the_cases_from_the_field(shared_sources: Path) -> None:
    cases = shared_sources.parent / "cases" / "config"
    if not cases.is_dir():
        pytest.skip(f"there are no cases at {cases}")
    with pytest.raises(ConfigError, match=r"cp949.yaml:1: byte 3 \(0xc7\) is not UTF-8; it seems to be CP949"):
        loading.load(str(cases / "cp949.yaml"))
    train = loading.load(str(cases / "merge.yaml")).train
    assert (train.learning_rate, train.batch_size) == (1e-3, 8)
