"""A model whose layers lie on several devices (`evaluate.gpus_per_worker`, `serve.gpus_per_replica`).

Here the devices are memory and disk: accelerate's hooks move inputs and weights as they do between GPUs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kit19_ray.lm.generator import Generator
from tests.evaluate.conftest import save_model

PLACES = {
    "gpt_neox.embed_in": "cpu", "gpt_neox.rotary_emb": "cpu", "gpt_neox.emb_dropout": "cpu", "gpt_neox.layers.0": "cpu",
    "gpt_neox.layers.1": "disk", "gpt_neox.layers.2": "disk", "gpt_neox.final_layer_norm": "cpu", "lm_head": "disk",
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, samples: Path) -> str:
    return str(save_model(tmp_path_factory.mktemp("model"), samples, layers=3))


def load(folder: str, monkeypatch: pytest.MonkeyPatch, places: dict[str, str] | None = None) -> Any:
    """Loaded as an actor with several GPUs does it."""
    import transformers.integrations.accelerate as integration

    if places is not None:
        monkeypatch.setattr(integration, "infer_auto_device_map", lambda *_, **__: dict(places))
    return Generator.load(folder, spread=True)


def test_scores_and_answers_are_those_of_the_whole_model(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, spread = Generator.load(folder), load(folder, monkeypatch, PLACES)
    assert set(spread.model.hf_device_map.values()) == {"cpu", "disk"}
    assert spread.model.gpt_neox.layers[1].mlp.dense_h_to_4h.weight.device.type == "meta", "it is on the disk"
    assert spread.supports_prefix_sharing and spread.takes_slots
    context = spread.encode("비가 많이 왔다. 그래서")
    requests = [(context, spread.encode(" 길이 젖었다.")), (context, spread.encode(" 해가 떴다."))]
    requests += [(context[:n], context[n:]) for n in range(1, 4)]
    expected, found = whole.loglikelihoods(requests), spread.loglikelihoods(requests)
    assert [greedy for _, greedy in found] == [greedy for _, greedy in expected]
    assert [value for value, _ in found] == pytest.approx([value for value, _ in expected], abs=1e-4)
    prompts = [context, context[:2], context[:5]]
    answers = [[done.token_ids for done in model.generate(prompts, 12)] for model in (whole, spread)]
    assert answers[0] == answers[1]
    text = [score.logprobs[1:] for model in (whole, spread) for score in model.score([context])]
    assert text[0] == pytest.approx(text[1], abs=1e-4)


def test_where_there_is_one_device_it_is_on_it(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = load(folder, monkeypatch)
    assert len({weight.device for weight in loaded.model.parameters()}) == 1
    assert loaded.generate([loaded.encode("기차")], 2)[0].token_ids
