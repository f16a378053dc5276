"""The harness with our model class against the harness with its own `hf` model, on the same files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kit19_ray.config.schema import EvaluateConfig
from kit19_ray.errors import EvaluateError
from kit19_ray.evaluate import harness, kobest
from kit19_ray.evaluate.actors import Pool
from kit19_ray.lm import pretrained

pytestmark = pytest.mark.ray

# float32 sums over other shapes differ in the last bits: here by about 1e-5 for 30 tokens.
TOLERANCE = 1e-3


@pytest.fixture(scope="module")
def pool(tiny_model: Path, ray_cluster: None) -> Iterator[Pool]:
    made = Pool(str(tiny_model), EvaluateConfig(workers=2, batch_tokens=2048))
    yield made
    made.close()


@pytest.fixture(scope="module")
def lm(pool: Pool, tiny_model: Path) -> Any:
    from kit19_ray.evaluate.ray_lm import RayLM

    return RayLM(pool, pretrained.load_config(str(tiny_model)), pretrained.load_tokenizer(str(tiny_model)))


@pytest.fixture(scope="module")
def hf(tiny_model: Path) -> Any:
    from lm_eval.models.huggingface import HFLM

    return HFLM(pretrained=str(tiny_model), device="cpu", batch_size=16)


def outcomes(found: dict[str, Any]) -> dict[str, list[tuple[int, list[bool]]]]:
    """Per task and document the choice that was picked, and which of them were greedy."""

    def picked(sample: dict[str, Any]) -> tuple[int, list[bool]]:
        values = [value for value, _ in sample["filtered_resps"]]
        return values.index(max(values)), [greedy for _, greedy in sample["filtered_resps"]]

    return {
        task: [picked(sample) for sample in sorted(samples, key=lambda s: s["doc_id"])]
        for task, samples in found["samples"].items()
    }


def compare(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    assert outcomes(ours) == outcomes(theirs)
    for task, samples in theirs["samples"].items():
        mine = {s["doc_id"]: s for s in ours["samples"][task]}
        for sample in samples:
            values = [value for value, _ in sample["filtered_resps"]]
            assert [v for v, _ in mine[sample["doc_id"]]["filtered_resps"]] == pytest.approx(values, abs=TOLERANCE)
            assert mine[sample["doc_id"]]["arguments"] == sample["arguments"]
    assert harness.scores(ours) == harness.scores(theirs)


@pytest.mark.parametrize("shots", [0, 2])
def test_scores_are_the_harness_own(shots: int, lm: Any, hf: Any, configured: Any) -> None:
    config = configured(f"evaluate.num_fewshot={shots}")
    tasks = harness.names(config)
    ours = harness.evaluate(lm, harness.load(config, tasks), None)
    theirs = harness.evaluate(hf, harness.load(config, tasks), None)
    compare(ours, theirs)
    scores = harness.scores(ours)
    assert list(scores) == list(kobest.LABELS)
    for task, entry in scores.items():
        assert {"acc", "macro_f1"} <= set(entry) and set(entry["stderr"]) >= {"acc", "macro_f1"}
        assert ("acc_norm" in entry) == (task == "kobest_hellaswag")
        assert entry["n"] == 24 and entry["num_fewshot"] == shots


@pytest.mark.real_data
def test_scores_are_the_harness_own_on_real_files(lm: Any, hf: Any, configured: Any, shared_sources: Path) -> None:
    config = configured(f"data.sources={shared_sources}")
    tasks = harness.names(config)
    ours = harness.evaluate(lm, harness.load(config, tasks), 60)
    compare(ours, harness.evaluate(hf, harness.load(config, tasks), 60))
    assert {entry["n"] for entry in harness.scores(ours).values()} == {60}


def instances(kind: str, arguments: list[tuple[Any, ...]]) -> list[Any]:
    from lm_eval.api.instance import Instance

    return [Instance(request_type=kind, doc={}, arguments=a, idx=i) for i, a in enumerate(arguments)]


def test_edges_of_loglikelihood(lm: Any, hf: Any) -> None:
    """Empty and overlong contexts, trailing spaces, a text that opens with the end-of-text token."""
    end = lm.tokenizer.eos_token
    asked = instances(
        "loglikelihood",
        [
            ("", " 예"),
            ("질문: ", "예"),
            ("가 " * 400, "나다"),
            (f"{end}문장", " 끝"),
            ("질문:  ", " 아니오"),
        ],
    )
    mine, theirs = lm.loglikelihood(asked), hf.loglikelihood(asked, disable_tqdm=True)
    assert [g for _, g in mine] == [g for _, g in theirs]
    assert [v for v, _ in mine] == pytest.approx([v for v, _ in theirs], abs=TOLERANCE)


def test_rolling_loglikelihood(lm: Any, hf: Any) -> None:
    asked = instances("loglikelihood_rolling", [("짧은 글",), ("긴 글이 이어진다. " * 60,)])
    theirs = hf.loglikelihood_rolling(asked, disable_tqdm=True)
    assert lm.loglikelihood_rolling(asked) == pytest.approx(theirs, abs=10 * TOLERANCE)


def test_generate_until(lm: Any, hf: Any) -> None:
    options = {"until": ["다"], "max_gen_toks": 12}
    asked = instances("generate_until", [("영화는", options), ("기차를 놓쳤다. 그래서 우리는", options)])
    asked += instances("generate_until", [("가야금은", {"until": [], "max_gen_toks": 5, "do_sample": False})])
    assert lm.generate_until(asked) == hf.generate_until(asked, disable_tqdm=True)


def test_the_context_is_the_harness_own(lm: Any, hf: Any) -> None:
    assert (lm.max_length, lm.prefix_token_id, lm.eot_token_id) == (hf.max_length, hf.prefix_token_id, hf.eot_token_id)


def test_an_actor_that_dies_is_started_again(pool: Pool) -> None:
    import ray

    requests = [([5, 6, 7, n], [8, n]) for n in range(2, 60)]
    before = [value for value, _ in pool.loglikelihoods(requests, "choices")]
    ray.kill(pool.actors[0], no_restart=False)
    assert [value for value, _ in pool.loglikelihoods(requests, "choices")] == pytest.approx(before, abs=TOLERANCE)


def test_more_actors_than_the_cluster_holds(tiny_model: Path, ray_cluster: None) -> None:
    with pytest.raises(EvaluateError, match="workers=3 need 3 CPUs, the Ray cluster has 2"):
        Pool(str(tiny_model), EvaluateConfig(workers=3))
    with pytest.raises(EvaluateError, match="workers=1 need 1 GPUs, the Ray cluster has 0"):
        Pool(str(tiny_model), EvaluateConfig(use_gpu=True))


@pytest.mark.parametrize(
    ("task", "said"),
    [("kobest_boolk", r"did you mean 'kobest_boolq'"), ("lambada_opena", r"did you mean 'lambada_openai'")],
)
def test_an_unknown_task(task: str, said: str, configured: Any) -> None:
    with pytest.raises(EvaluateError, match=said):
        harness.names(configured(f"evaluate.tasks=[kobest_copa,{task}]"))


def test_a_task_whose_documents_are_on_the_hub(configured: Any) -> None:
    with pytest.raises(EvaluateError, match=r"lambada_openai.*are on the hub"):
        harness.names(configured("evaluate.tasks=[lambada_openai]"))


def test_the_group_is_its_five_tasks(configured: Any) -> None:
    assert harness.names(configured("evaluate.tasks=[kobest,kobest_copa]")) == list(kobest.LABELS)
