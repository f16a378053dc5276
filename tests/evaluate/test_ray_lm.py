"""The harness with our model class against the harness with its own `hf` model, on the same files."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kit19_ray.config.schema import EvaluateConfig
from kit19_ray.errors import EvaluateError
from kit19_ray.evaluate import harness, harness_scores, suites
from kit19_ray.evaluate.actors import ScorerPool
from kit19_ray.lm import pretrained
from kit19_ray.utils import ray_session

pytestmark = pytest.mark.ray

# float32 sums over other shapes differ in the last bits: here by about 1e-5 for 30 tokens.
TOLERANCE = 1e-3


@pytest.fixture(scope="module")
def ray_cluster() -> Iterator[None]:
    """CPUs for the actors that the module's tests share, and for those that one test has beside them."""
    with ray_session.connected(cpus=4):
        yield


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
        assert ours["results"][task] == theirs["results"][task]


def run(lm: Any, config: Any, asked: list[str], shots: int, limit: int | None = None) -> dict[str, Any]:
    """The harness itself over all tasks at once, as its own command has it."""
    from lm_eval import evaluator

    loaded = harness.load(config, asked)
    for task in loaded.tasks.values():
        task.set_config(key="num_fewshot", value=shots)
        task.set_fewshot_seed(seed=harness.SEED)
    found: dict[str, Any] = evaluator.evaluate(
        lm, {"tasks": loaded.tasks, "groups": {}, "group_map": {}}, limit=limit, log_samples=True, bootstrap_iters=0
    )
    return found


@pytest.mark.parametrize("shots", [0, 2])
def test_scores_are_the_harness_own(shots: int, lm: Any, hf: Any, configured: Any) -> None:
    config = configured(f"evaluate.num_fewshot={shots}")
    asked = harness.names(config)
    theirs = run(hf, config, asked, shots)
    compare(run(lm, config, asked, shots), theirs)
    for name, task in harness.load(config, asked).tasks.items():
        result = harness.evaluate(lm, task, shots, config.evaluate)
        entry, outcomes = harness_scores.entry(result, task, shots)
        assert entry["acc"] == theirs["results"][name]["acc,none"]
        assert entry["macro_f1"] == theirs["results"][name]["f1,none"]
        assert {"acc", "macro_f1", "macro_f1_norm"} <= set(entry["stderr"]) | {"macro_f1_norm"}
        assert ("acc_norm" in entry) == (name == "kobest_hellaswag")
        assert entry["n"] == 24 and entry["num_fewshot"] == shots
        for metric, (low, high) in entry["interval"].items():
            assert low <= entry[metric] <= high, metric
        assert set(outcomes) >= {"acc", "macro_f1", "macro_f1_norm"} and len(outcomes["acc"]) == 24
        kept = list(harness.samples(result, task, name, shots))
        assert [s["metrics"]["acc"] for s in kept] == [float(s["answer"] == golds(s)) for s in kept]
        assert all(s["prompt_hash"] == hashlib.sha256(s["prompt"].encode()).hexdigest() for s in kept)


def golds(sample: Any) -> int:
    """The right choice's place: COPA's definition gives its text."""
    gold = sample["gold"]
    return [c.strip() for c in sample["choices"]].index(gold.strip()) if not str(gold).isdigit() else int(gold)


@pytest.mark.real_data
def test_scores_are_the_harness_own_on_real_files(lm: Any, hf: Any, configured: Any, shared_sources: Path) -> None:
    config = configured(f"data.sources={shared_sources}", "evaluate.tasks=[kobest,klue_sts]")
    asked = harness.names(config)
    ours, theirs = run(lm, config, asked, 0, 60), run(hf, config, asked, 0, 60)
    compare(ours, theirs)
    assert {len(samples) for samples in ours["samples"].values()} == {60}


@pytest.mark.real_data
@pytest.mark.slow
@pytest.mark.timeout(9000)
@pytest.mark.parametrize(
    "shots",
    [
        0,
        pytest.param(
            5,
            marks=pytest.mark.skipif(
                not os.environ.get("KIT19_LONG"), reason="contexts ten times as long; set KIT19_LONG=1 to run it"
            ),
        ),
    ],
)
def test_full_kobest_has_the_harness_own_counts(
    shots: int, configured: Any, shared_sources: Path, samples: Path, tmp_path: Path, ray_cluster: None
) -> None:
    from lm_eval.models.huggingface import HFLM

    from kit19_ray.evaluate.ray_lm import RayLM
    from tests.evaluate.conftest import save_model

    # Five solved examples need a context of 2,048, where hf's padded batches take an hour; without any, passages are
    # cut at 192 by both alike.
    context = 2048 if shots else 192
    folder = str(save_model(tmp_path, samples, seq_len=context))
    config = configured(f"data.sources={shared_sources}", f"evaluate.num_fewshot={shots}")
    pool = ScorerPool(folder, EvaluateConfig(workers=1, cpus_per_worker=1))
    ours = run(RayLM(pool, pretrained.load_tokenizer(folder), context), config, list(suites.KOBEST), shots)
    pool.close()
    hf = HFLM(pretrained=folder, device="cpu", batch_size=16)
    theirs = run(hf, config, list(suites.KOBEST), shots)
    assert {task: len(samples) for task, samples in ours["samples"].items()} == {
        "kobest_boolq": 1404, "kobest_copa": 1000, "kobest_hellaswag": 500, "kobest_sentineg": 397, "kobest_wic": 1260,
    }  # fmt: skip
    for task, samples in theirs["samples"].items():
        counts = [sum(sample["acc"] for sample in found) for found in (ours["samples"][task], samples)]
        assert counts[0] == counts[1], task
        assert ours["results"][task] == theirs["results"][task]
        sys.stdout.write(f"{task}, {shots}-shot: {counts[0]:.0f} of {len(samples)} right with both\n")


class Constant:
    """A backend that finds one continuation the likeliest, whatever is asked."""

    can_score = True

    def __init__(self, ids: list[int]) -> None:
        self.ids = ids

    def loglikelihoods(self, requests: Any, what: str, on_results: Any = None) -> list[tuple[float, bool]]:
        return [(0.0 if list(continuation) == self.ids else -1.0, False) for _, continuation in requests]


@pytest.mark.real_data
def test_all_yes_gives_the_papers_cells_of_klue_sts(tiny_model: Path, configured: Any, shared_sources: Path) -> None:
    """42.39 / 59.54 are Polyglot-Ko 1.3B's and KULLM's: the F1 is that of "similar" over 519 pairs, 220 of them so."""
    from kit19_ray.evaluate.ray_lm import RayLM

    config = configured(f"data.sources={shared_sources}", "evaluate.tasks=[klue_sts]")
    tokenizer = pretrained.load_tokenizer(str(tiny_model))
    (task,) = harness.load(config, harness.names(config)).tasks.values()
    prompt = task.doc_to_text(task.validation_docs()[0])
    yes = tokenizer.encode(prompt + " 예")[len(tokenizer.encode(prompt)) :]
    result = harness.evaluate(RayLM(Constant(yes), tokenizer, 100_000), task, 0, config.evaluate)
    entry, outcomes = harness_scores.entry(result, task, 0)
    assert (round(100 * entry["acc"], 2), round(100 * entry["f1"], 2)) == (42.39, 59.54)
    assert entry["n"] == 519 and sum(gold for gold, _ in outcomes["f1"].values()) == 220
    assert entry["interval"]["f1"][0] < entry["f1"] < entry["interval"]["f1"][1]


def instances(kind: str, arguments: list[tuple[Any, ...]]) -> list[Any]:
    from lm_eval.api.instance import Instance

    return [Instance(request_type=kind, doc={}, arguments=a, idx=i) for i, a in enumerate(arguments)]


def test_edges_of_loglikelihood(lm: Any, hf: Any) -> None:
    """Empty and overlong contexts, trailing spaces. A written end-of-text token is letters to us, and none to hf."""
    asked = instances(
        "loglikelihood",
        [
            ("", " 예"),
            ("질문: ", "예"),
            ("가 " * 400, "나다"),
            ("질문:  ", " 아니오"),
        ],
    )
    mine, theirs = lm.loglikelihood(asked), hf.loglikelihood(asked, disable_tqdm=True)
    assert [g for _, g in mine] == [g for _, g in theirs]
    assert [v for v, _ in mine] == pytest.approx([v for v, _ in theirs], abs=TOLERANCE)
    (written,) = instances("loglikelihood", [(f"{lm.tokenizer.eos_token}문장", " 끝")])
    assert lm.loglikelihood([written])[0][0] != pytest.approx(hf.loglikelihood([written], disable_tqdm=True)[0][0])


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


def test_an_actor_that_dies_is_started_again(pool: ScorerPool) -> None:
    import ray

    requests = [([5, 6, 7, n], [8, n]) for n in range(2, 60)]
    before = [value for value, _ in pool.loglikelihoods(requests, "choices")]
    ray.kill(pool.actors[0], no_restart=False)
    assert [value for value, _ in pool.loglikelihoods(requests, "choices")] == pytest.approx(before, abs=TOLERANCE)


def test_what_a_dead_actor_repeats_is_its_own_and_is_counted(
    tiny_model: Path, ray_cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    import ray

    from kit19_ray.evaluate import actors

    asked = tmp_path / "asked"

    class Noting(actors.Scorer):
        def loglikelihoods(self, requests: Any) -> Any:
            with asked.open("a") as file:
                file.writelines(f"{context} {continuation}\n" for context, continuation in requests)
            time.sleep(0.05)
            return super().loglikelihoods(requests)

    monkeypatch.setattr(actors, "Scorer", Noting)
    noting = ScorerPool(str(tiny_model), EvaluateConfig(workers=2, cpus_per_worker=1, batch_tokens=2048))
    requests = [([5, 6, 7, n], [8, n]) for n in range(2, 202)]
    heard: list[int] = []

    def die(numbers: list[int], results: list[Any]) -> None:
        if len(heard) < 60 <= len(heard) + len(numbers):
            ray.kill(noting.actors[0], no_restart=False)
        heard.extend(numbers)

    found = noting.loglikelihoods(requests, "choices", die)
    noting.close()
    assert len(found) == 200 and sorted(heard) == list(range(200)), "each is heard once"
    lines = asked.read_text().splitlines()
    assert len(set(lines)) == 200
    chunk = len(requests) // (2 * actors._CHUNKS_PER_ACTOR) + 1
    assert len(lines) - 200 <= noting.repeated <= 2 * chunk
    assert f"the {noting.repeated} of 200 choices it held are asked again" in capsys.readouterr().err


def test_what_actors_wait_for_is_said(
    pool: ScorerPool, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """Four CPUs: two are the shared actors', two somebody else's until he goes."""
    import ray

    from kit19_ray.evaluate import actors

    monkeypatch.setattr(actors, "_SILENCE", 1.0)
    assert len(pool.actors) == 2
    others = ray.remote(num_cpus=2)(actors.Scorer).remote(str(tiny_model), 0, 1, 1024)
    ray.get(others.loglikelihoods.remote([([5], [6])]))
    waiting = ScorerPool(str(tiny_model), EvaluateConfig(workers=1, cpus_per_worker=1))
    end = threading.Timer(3, ray.kill, [others])
    end.start()
    assert len(waiting.loglikelihoods([([5], [6])], "choices")) == 1
    waiting.close()
    assert "waiting for the first of 1 actors: each needs 1 CPUs" in capsys.readouterr().err


def test_more_actors_than_the_cluster_holds(tiny_model: Path, ray_cluster: None) -> None:
    with pytest.raises(EvaluateError, match="workers=5 need 5 CPUs, the Ray cluster has 4"):
        ScorerPool(str(tiny_model), EvaluateConfig(workers=5))
    with pytest.raises(EvaluateError, match="workers=1 need 2 GPUs, the Ray cluster has 0") as caught:
        ScorerPool(str(tiny_model), EvaluateConfig(use_gpu=True, gpus_per_worker=2))
    assert "evaluate.gpus_per_worker" in caught.value.hint


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


def test_suites_are_their_tasks(configured: Any) -> None:
    assert harness.names(configured("evaluate.tasks=[kobest,kobest_copa]")) == list(suites.KOBEST)
    assert harness.names(configured("evaluate.tasks=[paper]")) == [*suites.KOBEST, *suites.KLUE]


KOREAN = ["haerae", "kmmlu", "click", "csatqa", "kormedmcqa", "belebele_kor", "global_mmlu_ko", "hrm8k", "kmmlu_direct"]


def test_groups_tags_and_the_korean_suite_are_known_by_name(configured: Any) -> None:
    config = configured(f"evaluate.tasks=[korean,{','.join(KOREAN)},ai2_arc]", "evaluate.source=hub")
    asked = harness.names(config)
    assert set(asked) >= {"haerae", "kmmlu", "belebele_kor_Hang", "ai2_arc", *suites.KOBEST}
    index = harness.manager(config.evaluate, asked)
    assert set(suites.SUITES["korean"]) <= set(index.all_tasks)
    assert "ai2_arc" in index.all_tags and {"haerae", "kmmlu", "hrm8k"} <= set(index.all_groups)


def test_an_include_path_that_is_not_there(configured: Any, tmp_path: Path) -> None:
    with pytest.raises(EvaluateError, match="include_path: .*/nowhere is not a folder"):
        harness.names(configured(f"evaluate.include_path=[{tmp_path}/nowhere]"))


def own_tasks(folder: Path) -> Path:
    """Two tasks of ours, their group and a tag, reading a file beside them."""
    folder.mkdir()
    rows = [{"q": f"{n} 더하기 1은?", "gold": n % 2} for n in range(6)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    for name in ("own_a", "own_b"):
        (folder / f"{name}.yaml").write_text(
            f"""
task: {name}
tag: own_tag
dataset_path: json
dataset_kwargs: {{data_files: {{test: {folder}/rows.jsonl}}, cache_dir: {folder}/cache}}
output_type: multiple_choice
test_split: test
doc_to_text: "{{{{q}}}} {name}:"
doc_to_target: "{{{{gold}}}}"
doc_to_choice: ["이", "삼"]
metric_list: [{{metric: acc, aggregation: mean, higher_is_better: true}}]
num_fewshot: {0 if name == "own_b" else "null"}
metadata: {{version: 2.0}}
""",
            "utf-8",
        )
    (folder / "own.yaml").write_text(
        """
group: own
task: [own_a, own_b]
aggregate_metric_list: [{metric: acc, aggregation: mean, weight_by_size: true}]
metadata: {version: 1.0}
""",
        "utf-8",
    )
    return folder


def test_a_group_gives_what_its_leaves_give(lm: Any, configured: Any, tmp_path: Path) -> None:
    from kit19_ray.evaluate.evaluation import Evaluation

    folder = own_tasks(tmp_path / "tasks")
    found = {}
    for asked in (["own"], ["own_tag"], ["own_a", "own_b"]):
        config = configured(f"evaluate.include_path=[{folder}]", f"evaluate.tasks=[{','.join(asked)}]")
        evaluation = Evaluation(config, lm, f"file://{tmp_path}/out-{asked[0]}")
        evaluation.harness(harness.names(config))
        found[asked[0]] = evaluation
    assert found["own"].tasks == found["own_a"].tasks == found["own_tag"].tasks
    assert set(found["own"].tasks) == {"own_a", "own_b"} and found["own_a"].groups == {}
    leaves = found["own"].tasks
    assert found["own"].groups["own"]["acc"] == pytest.approx((leaves["own_a"]["acc"] + leaves["own_b"]["acc"]) / 2)
    assert found["own"].groups["own"]["n"] == 12


def test_several_numbers_of_solved_examples_in_one_run(lm: Any, configured: Any, tmp_path: Path) -> None:
    from kit19_ray.evaluate.evaluation import Evaluation

    config = configured("evaluate.num_fewshot=[2,0]", "evaluate.tasks=[kobest_copa]", "evaluate.limit=6")
    evaluation = Evaluation(config, lm, f"file://{tmp_path}/out")
    evaluation.harness(["kobest_copa"])
    assert {name: entry["num_fewshot"] for name, entry in evaluation.tasks.items()} == {
        "kobest_copa": 2, "kobest_copa@0": 0,
    }  # fmt: skip
    (first, *_), (bare, *_) = (list(evaluation.store.samples(unit)) for unit in evaluation.units)
    assert first["prompt"].endswith(bare["prompt"]) and first["prompt"].count("\n\n") == 2
    again = harness.evaluate(lm, harness.load(config, ["kobest_copa"]).tasks["kobest_copa"], 2, config.evaluate)
    assert again.samples[0]["arguments"][0][0] == first["prompt"], "the same solved examples every time"


def test_a_task_that_says_no_solved_examples_keeps_to_it(configured: Any, tmp_path: Path) -> None:
    config = configured(
        f"evaluate.include_path=[{own_tasks(tmp_path / 'tasks')}]", "evaluate.tasks=[own]", "evaluate.num_fewshot=[1,3]"
    )
    loaded = harness.load(config, ["own"]).tasks
    assert {name: harness.shots(task, config.evaluate) for name, task in loaded.items()} == {
        "own_a": [1, 3], "own_b": [0],
    }  # fmt: skip


TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}{% if add_generation_prompt %}<bot>{% endif %}"
)
REFUSING = "{% if messages[0].role == 'system' %}{{ raise_exception('no system turn') }}{% endif %}"


def test_chat_template_turns_and_system_instruction(lm: Any, configured: Any) -> None:
    words = ["evaluate.apply_chat_template=true", "evaluate.system_instruction=짧게 답하라.", "evaluate.limit=2"]
    config = configured(*words, "evaluate.fewshot_as_multiturn=true", "evaluate.tasks=[kobest_sentineg]")
    task = harness.load(config, ["kobest_sentineg"]).tasks["kobest_sentineg"]
    with pytest.raises(EvaluateError, match="has no chat template"):
        harness.evaluate(lm, task, 1, config.evaluate)
    lm.tokenizer.chat_template = TEMPLATE
    try:
        prompt = harness.evaluate(lm, task, 1, config.evaluate).samples[0]["arguments"][0][0]
        assert prompt.startswith("<system>짧게 답하라.<user>문장: ") and prompt.endswith("긍부정:<bot>")
        assert prompt.count("<user>") == 2 and prompt.count("<assistant>") == 1
        single = configured(*words, "evaluate.tasks=[kobest_sentineg]")
        prompt = harness.evaluate(lm, task, 1, single.evaluate).samples[0]["arguments"][0][0]
        assert prompt.count("<user>") == 1 and "<assistant>" not in prompt
        lm.tokenizer.chat_template = REFUSING + TEMPLATE
        prompt = harness.evaluate(lm, task, 0, config.evaluate).samples[0]["arguments"][0][0]
        assert prompt.startswith("<user>")
    finally:
        lm.tokenizer.chat_template = None
