"""Who may ask: keys by name, from a file that is rotated and from the environment."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from kit19_ray.errors import ServeError
from kit19_ray.serve import keys
from kit19_ray.serve.keys import ApiKeys

ALICE, BOB = "alices-long-enough-key", "bobs-long-enough-key"


def test_a_key_is_found_by_its_hash(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    hashed = hashlib.sha256(BOB.encode()).hexdigest()
    file.write_text(f"# who may ask\n\nalice {ALICE}  # with a name\nbob sha256:{hashed}\nunnamed-but-long-enough\n")
    found = ApiKeys(str(file))
    assert [found.owner(key) for key in (ALICE, BOB, "unnamed-but-long-enough")] == ["alice", "bob", "key-3"]
    assert [found.owner(key) for key in ("", "other", hashed, f"sha256:{hashed}", "\ud800")] == [None] * 5
    assert found and ALICE not in str(vars(found)), "only hashes are held"


def test_a_changed_file_is_read_again_and_a_broken_one_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "_LOOK_SECONDS", 0.0)
    file = tmp_path / "keys"
    file.write_text(f"alice {ALICE}\n")
    found = ApiKeys(str(file))
    file.write_text("what is this line\n")
    assert found.owner(ALICE) == "alice", "half written: the keys before stay"
    new = tmp_path / "new"
    new.write_text(f"bob {BOB}\n")
    os.replace(new, file)
    assert (found.owner(ALICE), found.owner(BOB)) == (None, "bob")
    file.unlink()
    assert found.owner(BOB) == "bob"


def test_keys_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(keys.ENVIRONMENT, f"alice {ALICE},{BOB}")
    found = ApiKeys(None)
    assert (found.owner(ALICE), found.owner(BOB)) == ("alice", "key-2")
    monkeypatch.delenv(keys.ENVIRONMENT)
    assert not ApiKeys(None) and ApiKeys(None).owner(ALICE) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("alice secretsecretsecret too many", "line 1 is not `NAME KEY` or `KEY`"),
        ("al/ice secretsecretsecret", "line 1 is not"),
        ("\nshort", "line 2: the key is shorter than 16 characters"),
        ("a sha256:secretsecretsecret", "followed by 64 hexadecimal digits"),
        ("a secretsecretsecret1\na secretsecretsecret2", "line 2: the name 'a' is there already"),
    ],
)
def test_a_wrong_line_is_named_and_not_shown(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "keys"
    file.write_text(text)
    with pytest.raises(ServeError, match=message) as caught:
        ApiKeys(str(file))
    assert "secret" not in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ServeError, match="serve.api_keys_file: .*nothing"):
        ApiKeys(str(tmp_path / "nothing"))
