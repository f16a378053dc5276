"""The reference names every key, and the page in docs/ is what the models say."""

from __future__ import annotations

from pathlib import Path

from kit19_ray.config import reference
from kit19_ray.config.schema import Config


def test_the_page_is_what_the_models_say() -> None:
    page = Path(__file__).parents[2] / "docs" / "reference" / "config.md"
    assert page.read_text(encoding="utf-8") == reference.markdown(), (
        "write it anew: python -m kit19_ray.config.reference > docs/reference/config.md"
    )


def test_every_key_has_a_meaning_and_a_default() -> None:
    found = {key.path: key for key in reference.config_keys()}
    assert [path for path, key in found.items() if not key.meaning] == []
    assert found["train.epochs"].default == "2.0"
    assert found["train.workers"].runtime
    assert not found["train.epochs"].runtime
    assert found["data.tokenizer.name"].type == "text or null"
    assert found["train.zero_stage"].type == "1 | 2 | 3"
    assert found["train.min_learning_rate_ratio"].type == "number ≥ 0, ≤ 1"
    assert len(found) > len(Config.model_fields)


def test_help_shows_the_keys_of_its_section() -> None:
    shown = reference.epilog("train")
    assert "train.learning_rate = 2e-05\n    Peak learning rate" in shown
    assert "serve.port" not in shown
