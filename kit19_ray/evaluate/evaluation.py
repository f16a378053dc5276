"""One evaluation under way: task by task, each kept when it is done, so that the same command goes on after a cut."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from kit19_ray.artifacts import lexical
from kit19_ray.artifacts.data_manifests import DataManifest
from kit19_ray.artifacts.sample_file import ScoredSample
from kit19_ray.artifacts.score_files import Outcomes, TaskScores
from kit19_ray.config.schema import Config
from kit19_ray.evaluate import (
    choices_in_words,
    harness,
    harness_scores,
    held_out,
    held_out_scores,
    judge_questions,
    judging,
)
from kit19_ray.evaluate.harness import HarnessMetrics
from kit19_ray.evaluate.judge_questions import Question
from kit19_ray.evaluate.judging import Judge
from kit19_ray.evaluate.ray_lm import RayLM
from kit19_ray.evaluate.response_log import ResponseLog
from kit19_ray.evaluate.unit_store import UnitScores, UnitStore
from kit19_ray.lm.prompts import encode_prompts, load_prompt
from kit19_ray.lm.text_encoder import TextEncoder
from kit19_ray.utils.console import say


class Evaluation:
    """Scores, outcomes and units of what was asked so far.

    Args:
        lm: the model; its backend answers.
        out: the evaluate prefix.
    """

    def __init__(self, config: Config, lm: RayLM, out: str) -> None:
        self._config, self._lm, self._backend = config, lm, lm.backend
        self.store = UnitStore(out)
        self.units: list[str] = []
        """Of this evaluation, in the order of samples.jsonl."""
        self.tasks: dict[str, TaskScores] = {}
        self.groups: dict[str, TaskScores] = {}
        self.held_out_scores: dict[str, TaskScores] = {}
        self.judge_scores: dict[str, TaskScores] = {}
        self.outcomes: Outcomes = {"tasks": {}, "held_out": {}}
        self.test_sets: list[str] = []
        """The harness's tasks without their numbers of solved examples."""

    def harness(self, asked: list[str]) -> None:
        """The harness's tasks behind these names, each with every number of solved examples; then their groups."""
        loaded = harness.load(self._config, asked)
        self.test_sets = list(loaded.tasks)
        metrics: dict[int, dict[str, HarnessMetrics]] = {}
        for place, count in enumerate(self._config.evaluate.num_fewshot):
            for name, task in loaded.tasks.items():
                shots = harness.shots(task, self._config.evaluate)
                if place >= len(shots):
                    continue  # its own definition allows no other number than the first
                named = name if place == 0 else f"{name}@{shots[place]}"
                unit = self._unit(f"{name}.{shots[place]}-shot", partial(self._task, task, shots[place], named))
                self.tasks[named] = unit["scores"]
                self.outcomes["tasks"][named] = unit["outcomes"]
                metrics.setdefault(place, {})[name] = unit["metrics"]
            for name, group in loaded.groups.items():
                found = harness_scores.group_entry(group, metrics[place])
                if found is not None:
                    self.groups[name if place == 0 else f"{name}@{count}"] = {**found, "num_fewshot": count}

    def _task(self, task: Any, shots: int, named: str) -> tuple[UnitScores, list[ScoredSample]]:
        self._lm.task = named
        if not self._lm.backend.can_score and task.OUTPUT_TYPE != "generate_until":
            kept, samples = choices_in_words.evaluate(self._lm, task, named, shots, self._config.evaluate)
        else:
            result = harness.evaluate(self._lm, task, shots, self._config.evaluate)
            entry, outcomes = harness_scores.entry(result, task, shots)
            kept = {"scores": entry, "outcomes": outcomes, "metrics": harness_scores.numbers(result.metrics)}
            samples = list(harness.samples(result, task, named, shots))
        for sample in samples if self._config.evaluate.apply_chat_template else ():
            sample["prompt"] = TextEncoder.shown(sample["prompt"])
        return kept, samples

    def held_out(self, data_uri: str, built: DataManifest) -> None:
        """The validation rows of a data prefix, task by task.

        Args:
            built: the prefix's manifest.
        """
        tokenizer, endpoint = self._lm.tokenizer, self._config.evaluate.endpoint is not None
        prompt = load_prompt(built["prompt"], tokenizer)
        reader = held_out.Reader(
            encode=partial(encode_prompts, self._lm.encoder, prompt),
            decode=lambda ids: str(tokenizer.decode(ids, skip_special_tokens=False)),
            prompt=prompt,
            eos_id=tokenizer.eos_token_id,
            # A server's tokens are not known here; it says itself what is too long.
            room=self._lm.max_length if endpoint else min(self._lm.max_length, built["seq_len"]),
        )

        letters = lexical.read(data_uri)

        def scored(task: str) -> tuple[UnitScores, list[ScoredSample]]:
            rows = held_out.read(data_uri, task)
            unseen = held_out.unseen_templates(data_uri, task)
            samples = held_out.ask(rows, reader, self._lm.backend, self._config.evaluate, unseen)
            free = sum(not row["candidates"] for row in rows)
            left_out = len(rows) - max(0, free - self._config.evaluate.generation_limit) - len(samples)
            if left_out:
                say(
                    f"evaluate: {left_out:,} held-out rows of {task} do not fit {reader.room:,} tokens and are left out"
                )
            scores, outcomes = held_out_scores.summarize(task, samples, letters.get(task)) if samples else ({}, {})
            return {"scores": scores, "outcomes": outcomes}, samples

        for task in held_out.tasks(data_uri):
            unit = self._unit(f"held_out.{task}", partial(scored, task))
            if unit["scores"]:
                self.held_out_scores[task] = unit["scores"]
                self.outcomes["held_out"][task] = unit["outcomes"]

    def judged(self, wrapper: str) -> None:
        """The open questions of `evaluate.judge.questions`, graded or compared by the judge.

        Args:
            wrapper: prompt wrapper of a model without a chat template.
        """
        section = self._config.evaluate.judge
        judge = Judge(section)
        try:
            for name, questions in judge_questions.read(section).items():

                def scored(
                    name: str = name, questions: list[Question] = questions
                ) -> tuple[UnitScores, list[ScoredSample]]:
                    said = judging.answer(questions, self._lm, wrapper, section.max_tokens)
                    log = ResponseLog(judge.backend, self.store.responses(f"judge.{name}.judgements"))
                    samples = judging.judge(name, said, log, section)
                    scores, outcomes = judging.summarize(samples)
                    return {"scores": scores, "outcomes": outcomes}, samples

                unit = self._unit(f"judge.{name}", scored)
                self.judge_scores[name] = unit["scores"]
                self.outcomes.setdefault("judge", {})[name] = unit["outcomes"]
                self.store.forget(f"judge.{name}.judgements")
        finally:
            judge.close()

    def _unit(self, name: str, score: Callable[[], tuple[UnitScores, list[ScoredSample]]]) -> UnitScores:
        """A unit's scores, read where it is finished, else made by `score` and kept."""
        self.units.append(name)
        found = self.store.read(name)
        if found is not None:
            say(f"evaluate: {name} was finished before")
            return found
        self._lm.backend = ResponseLog(self._backend, self.store.responses(name))
        try:
            scores, samples = score()
        finally:
            self._lm.backend = self._backend
        self.store.write(name, scores, samples)
        return scores
