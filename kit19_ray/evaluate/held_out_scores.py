"""Figures of the held-out samples: by task, by kind of template, by template, by templates seen in training and not."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from kit19_ray.artifacts.sample_file import ScoredSample
from kit19_ray.artifacts.score_files import TaskOutcomes, TaskScores
from kit19_ray.evaluate import metrics

_ORDINAL = ("korsts",)
"""Tasks whose labels are grades: how far off an answer is counts too."""


def summarize(
    task: str, samples: Sequence[ScoredSample], lexical: Mapping[str, int] | None = None
) -> tuple[TaskScores, TaskOutcomes]:
    """A task's part of scores.json and of outcomes.json.

    Args:
        lexical: what the data stage's lexical baseline answers, by row id.

    Returns:
        For choices `accuracy`, `accuracy_norm` (log-likelihood per letter), `macro_f1`, `majority`, `lexical` (what the
        baseline that sees letters alone reaches on these very rows, where the data stage has it), `above_majority`,
        `n`, `labels`, `stderr`, `interval`, `by_kind`, `by_template`, `by_seen`, and of graded labels `pearson` and
        `spearman`; for free answers, under `generation`, `n` and the means of the answers' own figures, the same parts,
        and `by_type`; both where a task has both. And each row's own figures by metric and row id.
    """
    choices = [sample for sample in samples if "choices" in sample]
    free = [sample for sample in samples if "choices" not in sample]
    scores = _choices(task, choices, lexical or {}) if choices else {}
    outcomes: TaskOutcomes = {}
    for sample in choices:
        for name in ("accuracy", "accuracy_norm"):
            if name in sample["metrics"]:
                outcomes.setdefault(name, {})[sample["doc_id"]] = sample["metrics"][name]
        outcomes.setdefault("macro_f1", {})[sample["doc_id"]] = list(_pair(sample))
    if free:
        scores["generation"] = _free(free)
        for sample in free:
            for name, value in sample["metrics"].items():
                outcomes.setdefault(f"generation.{name}", {})[sample["doc_id"]] = value
    return scores, outcomes


def _pair(sample: ScoredSample) -> tuple[int, int]:
    """(gold, predicted); -1 for an answer that names no choice."""
    answer = sample["answer"]
    return int(sample["gold"]), -1 if answer is None else int(answer)  # type: ignore[arg-type]


def _choices(task: str, samples: Sequence[ScoredSample], lexical: Mapping[str, int]) -> TaskScores:
    """`majority` is what the most frequent label of these very rows would reach, always answered; `above_majority` is
    the distance to it in standard errors, of the accuracy or of the constant answer, whichever is larger."""
    pairs = [_pair(sample) for sample in samples]
    share, constant = metrics.accuracy(pairs), metrics.majority([gold for gold, _ in pairs])
    error = metrics.proportion_stderr(share, len(pairs))
    largest = max(error, metrics.proportion_stderr(constant, len(pairs)))
    spread = metrics.f1_spread(pairs)
    scores: TaskScores = {
        "accuracy": share,
        "macro_f1": metrics.macro_f1(pairs),
        "majority": constant,
        **_lexical(samples, lexical),
        "above_majority": (share - constant) / largest if largest else 0.0,
        "n": len(pairs),
        "labels": len({gold for gold, _ in pairs}),
        "stderr": {"accuracy": error, "macro_f1": spread.stderr},
        "interval": {
            "accuracy": list(metrics.mean_interval([float(gold == predicted) for gold, predicted in pairs])),
            "macro_f1": list(spread.interval),
        },
        **_groups(samples, lambda found: _share(found) | _lexical(found, lexical)),
    }
    unnamed = sum(predicted < 0 for _, predicted in pairs)
    if all("loglikelihoods" in sample for sample in samples):
        normalised = [sample["metrics"]["accuracy_norm"] for sample in samples]
        scores["accuracy_norm"] = sum(normalised) / len(normalised)
        scores["stderr"]["accuracy_norm"] = metrics.proportion_stderr(scores["accuracy_norm"], len(normalised))
        scores["interval"]["accuracy_norm"] = list(metrics.mean_interval(normalised))
        if task in _ORDINAL:
            golds = [float(gold) for gold, _ in pairs]
            expected = [sample["metrics"]["expected"] for sample in samples]
            scores["pearson"] = metrics.pearson(golds, expected)
            scores["spearman"] = metrics.spearman(golds, expected)
    else:
        scores["method"], scores["names_no_choice"] = "generation", unnamed
    return scores


def _lexical(samples: Sequence[ScoredSample], lexical: Mapping[str, int]) -> TaskScores:
    """The baseline's share of right answers to these rows; nothing where it has not answered every one."""
    if not all(sample["doc_id"] in lexical for sample in samples):
        return {}
    return {"lexical": sum(lexical[sample["doc_id"]] == sample["gold"] for sample in samples) / len(samples)}


def _share(samples: Sequence[ScoredSample]) -> TaskScores:
    pairs = [_pair(sample) for sample in samples]
    share = metrics.accuracy(pairs)
    return {
        "accuracy": share,
        "macro_f1": metrics.macro_f1(pairs),
        "majority": metrics.majority([gold for gold, _ in pairs]),
        "n": len(pairs),
        "stderr": {"accuracy": metrics.proportion_stderr(share, len(pairs))},
    }


def _free(samples: Sequence[ScoredSample]) -> TaskScores:
    scores: TaskScores = {**_means(samples), "interval": {}}
    for name in scores["stderr"]:
        scores["interval"][name] = list(metrics.mean_interval(_values(samples, name)))
    scores["cut"] = sum(sample["finish_reason"] == "length" for sample in samples) / len(samples)
    types = _by(samples, lambda sample: sample["answer_type"])
    return {**scores, **_groups(samples, _means), "by_type": {name: _means(found) for name, found in types.items()}}


def _means(samples: Sequence[ScoredSample]) -> TaskScores:
    """Means over the samples that have the figure."""
    names = list(dict.fromkeys(name for sample in samples for name in sample["metrics"]))
    out: TaskScores = {"n": len(samples), "stderr": {}}
    for name in names:
        values = _values(samples, name)
        out[name] = sum(values) / len(values)
        out["stderr"][name] = metrics.mean_stderr(values)
    return out


def _values(samples: Sequence[ScoredSample], name: str) -> list[float]:
    return [sample["metrics"][name] for sample in samples if name in sample["metrics"]]


def _groups(samples: Sequence[ScoredSample], summary: Callable[[Sequence[ScoredSample]], TaskScores]) -> TaskScores:
    seen = _by(samples, lambda sample: "unseen" if sample["unseen_template"] else "seen")
    return {
        "by_kind": {key: summary(found) for key, found in _by(samples, lambda sample: sample["kind"]).items()},
        "by_template": {key: summary(found) for key, found in _by(samples, lambda sample: sample["template"]).items()},
        "by_seen": {key: summary(found) for key, found in seen.items()} if len(seen) > 1 else {},
    }


def _by(samples: Iterable[ScoredSample], key: Callable[[ScoredSample], str]) -> dict[str, list[ScoredSample]]:
    found: dict[str, list[ScoredSample]] = {}
    for sample in samples:
        found.setdefault(key(sample), []).append(sample)
    return dict(sorted(found.items()))
