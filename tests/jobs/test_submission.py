from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from kit19_ray.config import loading
from kit19_ray.errors import OperateError
from kit19_ray.jobs import submission


def make(*overrides: str, verb: str = "data", name: str = "x") -> submission.Submission:
    return submission.make(loading.load(None, ["root=s3://bucket/runs", *overrides], {}), verb, name)


def test_what_was_set_is_sent_and_nothing_else() -> None:
    made = make("train.epochs=2.0", "data.quota=7", verb="run")
    assert yaml.safe_load(made.files["kit19.yaml"]) == {
        "root": "s3://bucket/runs",
        "train": {"epochs": 2.0},  # the default, said all the same: a cluster's version may have another
        "data": {"quota": 7},
    }
    assert made.entrypoint == "python -m kit19_ray run --config kit19.yaml --no-serve"
    assert made.warnings == ()


def test_equal_submissions_have_equal_ids_and_others_do_not() -> None:
    bases = [make(), make(), make("data.quota=7"), make(verb="train"), make(name="y")]
    assert len({one.base for one in bases}) == 4 and bases[0].base == bases[1].base
    assert bases[0].id(3) == f"{bases[0].base}-3"


@given(st.text())
def test_a_name_becomes_letters_digits_and_dashes(name: str) -> None:
    slug = submission.slug(name)
    assert 0 < len(slug) <= 40 and slug.strip("-") == slug
    assert all(c in "abcdefghijklmnopqrstuvwxyz0123456789-" for c in slug) and submission.slug(slug) == slug


@given(st.integers(min_value=1))
def test_an_attempt_is_known_by_its_id(number: int) -> None:
    assert submission.attempt_of("x-data-abc", f"x-data-abc-{number}") == number
    assert submission.attempt_of("x-data-ab", f"x-data-abc-{number}") is None
    assert submission.attempt_of("x-data-abc", f"x-data-abc-{number}-other") is None


def test_local_paths_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "org" / "model").mkdir(parents=True)
    assert not make("train.model.name=EleutherAI/polyglot-ko-1.3b", "data.sources=samples").warnings
    told = make("train.model.name=org/model", "serve.model=/models/x", "evaluate.model=s3://b/x").warnings
    assert [one.split("=")[0] for one in told] == ["train.model.name", "serve.model"]
    assert "every node of the cluster must see it" in told[0]


def test_a_local_folder_of_tasks_travels(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("category: x\n")
    (tmp_path / "notes.txt").write_text("not a task")
    made = make(f"data.tasks_dir={tmp_path}")
    assert set(made.files) == {"kit19.yaml", "tasks/mine.yaml"} and made.warnings == ()
    assert yaml.safe_load(made.files["kit19.yaml"])["data"]["tasks_dir"] == "tasks"
    (tmp_path / "mine.yaml").write_text("category: y\n")
    assert make(f"data.tasks_dir={tmp_path}").base != made.base


@pytest.mark.parametrize(
    ("override", "what"),
    [
        ("train.data=s3://user:pass@bucket/x", "a password in a URL"),
        ("data.sources=s3://b/x?X-Amz-Signature=abc", "a signed URL"),
        ("serve.served_name=AKIAABCDEFGHIJKLMNOP", "an AWS access key"),
        ("serve.served_name=hf_abcdefghijklmnopqrstuvwx", "a Hugging Face token"),
        ("serve.served_name=-----BEGIN RSA PRIVATE KEY-----", "a private key"),
    ],
)
def test_credentials_are_refused_without_being_shown(override: str, what: str) -> None:
    with pytest.raises(OperateError) as told:
        make(override)
    assert "kit19.yaml:" in str(told.value)
    assert what in str(told.value) and override.partition("=")[2] not in str(told.value)


def test_an_unknown_verb_names_the_nearest() -> None:
    with pytest.raises(OperateError, match=r"submit 'evalute': not one of .* \(did you mean 'evaluate'\?\)"):
        make(verb="evalute")
