"""The harness's multiple-choice tasks for a backend without log-likelihoods: the choice is read from what it writes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from kit19_ray.artifacts import manifest
from kit19_ray.artifacts.sample_file import ScoredSample
from kit19_ray.artifacts.score_files import TaskOutcomes
from kit19_ray.config.schema import EvaluateConfig
from kit19_ray.errors import EvaluateError
from kit19_ray.evaluate import answers, harness, metrics
from kit19_ray.evaluate.actors import GenerateOptions
from kit19_ray.evaluate.ray_lm import RayLM
from kit19_ray.evaluate.unit_store import UnitScores

_TOKENS = 64  # of an answer, beside the longest choice


def evaluate(
    lm: RayLM, task: Any, named: str, num_fewshot: int, config: EvaluateConfig
) -> tuple[UnitScores, list[ScoredSample]]:
    """One task at one number of solved examples; an answer that names no choice, or several, is wrong.

    Raises:
        EvaluateError: the task is no multiple choice of one prompt.
    """
    if task.OUTPUT_TYPE != "multiple_choice" or getattr(task, "multiple_input", 0):
        raise EvaluateError(
            f"evaluate.tasks: {task.task_name} needs log-likelihoods, which the endpoint does not give",
            hint="score it with evaluate.model, or through a server whose /v1/completions has echo and logprobs",
        )
    documents = _documents(lm, task, num_fewshot, config)
    longest = max((len(choice) for _, _, choices in documents for choice in choices), default=0)
    options: GenerateOptions = {"max_tokens": _TOKENS + longest, "stop": [str(task.config.fewshot_delimiter)]}
    prompts = [lm.tok_encode(prompt) for _, prompt, _ in documents]
    said = lm.backend.generate(prompts, options, f"answers of {lm.task}")
    samples: list[ScoredSample] = []
    pairs = []
    for (doc, prompt, choices), completion in zip(documents, said, strict=True):
        gold, picked = _gold(task, doc, choices), answers.pick_choice(completion.text, choices)
        pairs.append((gold, -1 if picked is None else picked))
        samples.append({
            "section": "tasks", "task": named, "num_fewshot": num_fewshot, "doc_id": str(len(samples)),
            "template": f"{task.task_name}@{task.VERSION}", "prompt": prompt,
            "prompt_hash": hashlib.sha256(prompt.encode()).hexdigest(), "choices": choices, "said": completion.text,
            "finish_reason": completion.finish_reason, "gold": gold, "answer": picked,
            "metrics": {"acc": float(gold == picked)},
        })  # fmt: skip
    right = [sample["metrics"]["acc"] for sample in samples]
    spread, share = metrics.f1_spread(pairs), metrics.accuracy(pairs)
    error = metrics.mean_stderr(right)
    scores = {
        "acc": share, "macro_f1": metrics.macro_f1(pairs), "n": len(pairs), "num_fewshot": num_fewshot,
        "version": task.VERSION, "method": "generation", "names_no_choice": sum(p < 0 for _, p in pairs),
        "prompts": manifest.digest([sample["prompt_hash"] for sample in samples])[:16],
        "stderr": {"acc": error, "macro_f1": spread.stderr},
        "interval": {"acc": list(metrics.mean_interval(right)), "macro_f1": list(spread.interval)},
    }  # fmt: skip
    outcomes: TaskOutcomes = {
        "acc": {sample["doc_id"]: sample["metrics"]["acc"] for sample in samples},
        "macro_f1": {sample["doc_id"]: list(pair) for sample, pair in zip(samples, pairs, strict=True)},
    }
    found = {"acc,none": share, "acc_stderr,none": error, "sample_len": len(pairs)}
    return {"scores": scores, "outcomes": outcomes, "metrics": found}, samples


def _documents(lm: RayLM, task: Any, num_fewshot: int, config: EvaluateConfig) -> list[tuple[Any, str, list[str]]]:
    """Each document with its prompt and its choices, as the harness asks them."""
    chat = config.apply_chat_template
    with harness.asked_with(task, num_fewshot), harness.quiet():
        task.build_all_requests(
            limit=config.limit,
            rank=0,
            world_size=1,
            system_instruction=config.system_instruction,
            apply_chat_template=chat,
            fewshot_as_multiturn=config.fewshot_as_multiturn,
            chat_template=lm.apply_chat_template if chat else None,
            tokenizer_name=lm.tokenizer_name if chat else "",
        )
    found: dict[int, tuple[Any, str, list[str]]] = {}
    for instance in task.instances:
        prompt, choice = instance.args
        found.setdefault(instance.doc_id, (instance.doc, prompt, []))[2].append(choice.strip())
    return [found[number] for number in sorted(found)]


def _gold(task: Any, doc: Any, choices: Sequence[str]) -> int:
    target = harness.plain(task.doc_to_target(doc))
    if isinstance(target, str) and target.strip() in choices:
        return list(choices).index(target.strip())
    return int(target)
