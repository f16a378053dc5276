"""YAML as we read it: 1.2, no key twice, aliases bounded, and each refusal with file, line or byte."""

from __future__ import annotations

import codecs
from pathlib import Path

import pytest

from kit19_ray.config import strict_yaml
from kit19_ray.errors import ConfigError, TaskError
from kit19_ray.sources.catalog import CATALOG
from kit19_ray.sources.evaluation_sets import EVALUATION_SETS
from kit19_ray.tasks.task import DEFINITIONS


def refusal(content: str | bytes) -> str:
    with pytest.raises(ConfigError) as caught:
        strict_yaml.parse(content, "c.yaml")
    return str(caught.value)


def test_scalars_are_those_of_yaml_1_2() -> None:
    text = "a: yes\nb: no\nc: on\nd: true\ne: 2e-5\nf: 12:30\ng: 010\nh: null\ni: 1 0\nj: 0x10\nk: ~\nyes: 1\n"
    assert strict_yaml.parse(text, "c.yaml") == {
        "a": "yes", "b": "no", "c": "on", "d": True, "e": 2e-5, "f": "12:30", "g": 10, "h": None, "i": "1 0", "j": 16,
        "k": None, "yes": 1,
    }  # fmt: skip


def test_an_empty_file_is_an_empty_mapping() -> None:
    assert strict_yaml.parse("", "c.yaml") == strict_yaml.parse("# nothing\n", "c.yaml") == {}


def test_merge_keys_are_merged_and_what_stands_beside_them_wins() -> None:
    text = "base: &base {a: 1, b: 2}\ntrain:\n  <<: *base\n  b: 3\ntwo:\n  <<: [*base, {c: 4}]\n"
    assert strict_yaml.parse(text, "c.yaml")["train"] == {"a": 1, "b": 3}
    assert strict_yaml.parse(text, "c.yaml")["two"] == {"a": 1, "b": 2, "c": 4}


def test_a_key_that_only_holds_an_anchor_is_left_out_unless_it_means_something() -> None:
    text = "base: &base {a: 1}\ntrain: *base\nunused: &unused {a: 1}\n"
    assert strict_yaml.parse(text, "c.yaml", known={"train"}) == {"train": {"a": 1}, "unused": {"a": 1}}
    assert "base" in strict_yaml.parse(text, "c.yaml", known={"train", "base"})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("seed: 1\ntrain:\n  a: 1\n  a: 2\n", "c.yaml:4: key 'a' stands twice"),
        ("a: 1\n1: 2\n", "c.yaml:2: key 1 is not text: write it in quotes"),
        ("true: 2\n", "c.yaml:1: key true is not text: write it in quotes"),
        ("? [a]\n: 2\n", "c.yaml:1: key {...} is not text: write it in quotes"),
        ("a: 1\nb: [1, 2\n", "c.yaml:3: not YAML: "),
        ("a: 1\nb: !!python/object:os.system x\n", "c.yaml:2: not YAML: "),
        ("a: *b\n", "c.yaml:1: not YAML: found undefined alias"),
        ("a: \x07\n", "c.yaml: not YAML: "),
        ("- 1\n", "c.yaml: expected `key: value` lines, found a list"),
        ("text\n", "c.yaml: expected `key: value` lines, found a str"),
        ("a: 1\n---\nb: 1\n", "not YAML: "),
        ("a: &a [*a]\n", "c.yaml:1: a value holds itself by an alias"),
        ("a: " + "[" * 5000 + "]" * 5000, "c.yaml: nested too deep"),
    ],
)
def test_what_is_refused_and_where(text: str, said: str) -> None:
    assert said in refusal(text)


def test_aliases_cannot_make_a_large_thing_of_a_small_file() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 30)]
    assert refusal("\n".join(lines)) == "c.yaml:5: aliases make more than 100,000 values of this"
    assert len(strict_yaml.parse("\n".join(lines[:3]), "c.yaml")) == 3


def test_a_file_too_large_is_not_parsed() -> None:
    assert "c.yaml: more than 16 MiB" in refusal(b"#" * (strict_yaml.MAX_BYTES + 1))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("a: 1\n# 한국어\n".encode("cp949"), "c.yaml:2: byte 8 (0xc7) is not UTF-8; it seems to be CP949 (EUC-KR)"),
        ("# 설정\na: 1\n".encode("euc-kr"), "c.yaml:1: byte 3 (0xbc) is not UTF-8; it seems to be CP949 (EUC-KR)"),
        ("a: 한\n".encode("utf-16"), "c.yaml:1: byte 1 (0xff) is not UTF-8; it seems to be UTF-16"),
        (codecs.BOM_UTF8 + b"a: \xff\xff", "c.yaml:1: byte 7 (0xff) is not UTF-8"),
        (b"a: 1\nb: \xed\xa0\x80\n", "c.yaml:2: byte 9 (0xed) is not UTF-8"),
    ],
)
def test_another_encoding_is_named_with_its_first_byte(content: bytes, said: str) -> None:
    told = refusal(content)
    assert told.startswith(said)
    assert "iconv -f cp949 -t utf-8 c.yaml" in told


def test_a_byte_order_mark_of_utf_8_is_no_fault() -> None:
    assert strict_yaml.parse(codecs.BOM_UTF8 + "이름: 1\n".encode(), "c.yaml") == {"이름": 1}


def test_a_long_value_is_quoted_in_part() -> None:
    assert len(refusal(f"{'k' * 9999}: 1\n{'k' * 9999}: 1\n")) < 300


def test_the_error_is_of_the_class_that_was_asked_for() -> None:
    with pytest.raises(TaskError):
        strict_yaml.parse(b"\xff", "t.yaml", TaskError)


def test_a_word_that_is_no_yaml_is_text() -> None:
    assert strict_yaml.value("[a, b]") == ["a", "b"]
    for word in ("s3://x: y: z", "[", "*a", "{a: 1, a: 2}", "@x"):
        assert strict_yaml.value(word) == word


@pytest.mark.parametrize("path", [CATALOG, EVALUATION_SETS, *sorted(DEFINITIONS.glob("*.yaml"))], ids=lambda p: p.stem)
def test_our_own_files_mean_the_same_to_a_yaml_1_1_reader(path: Path) -> None:
    import yaml

    read = path.read_bytes()
    assert strict_yaml.parse(read, path.name) == yaml.safe_load(read)
