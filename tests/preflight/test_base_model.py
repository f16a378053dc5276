from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kit19_ray.artifacts import manifest
from kit19_ray.errors import UserError
from kit19_ray.preflight.base_model import read_config


def test_read_config_takes_a_folder_a_train_prefix_and_the_hubs_cache(tmp_path: Path, monkeypatch: Any) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "gpt_neox"}')
    assert read_config(str(folder)) == {"model_type": "gpt_neox"}
    trained = tmp_path / "train-1"
    (trained / "export").mkdir(parents=True)
    (trained / "export" / "config.json").write_text('{"model_type": "llama"}')
    manifest.commit(f"file://{trained}", {"stage": "train", "export": "export"})
    assert read_config(str(trained)) == {"model_type": "llama"}
    assert read_config("no-such-organisation/no-such-model") is None
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: str(folder / "config.json"))
    assert read_config("an-organisation/a-model") == {"model_type": "gpt_neox"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "has no config.json, so it is no model in Hugging Face's layout"),
        ("{", "config.json is not JSON"),
        ("[]", "a model's config is a JSON object, this is a list"),
    ],
)
def test_a_folder_without_a_config_is_no_model(tmp_path: Path, text: str | None, said: str) -> None:
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    with pytest.raises(UserError, match=said):
        read_config(str(tmp_path))
