"""lm-evaluation-harness as the judge: its task definitions and metrics, our documents and model."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from kit19_ray.config.schema import Config
from kit19_ray.errors import EvaluateError, nearest
from kit19_ray.evaluate import kobest
from kit19_ray.evaluate.metrics import macro_f1_stderr

GROUP = "kobest"  # the harness's name for its five tasks
_SEED = 1234  # the harness's own default for the choice of solved examples
_NAMES = {"f1": "macro_f1"}  # KoBEST's YAMLs say f1 and compute macro-F1
_LOGGERS = ("lm_eval", "datasets", "absl", "filelock")


def names(config: Config) -> list[str]:
    """The tasks of `evaluate.tasks`, the group `kobest` as its five, each once.

    Raises:
        EvaluateError: a task is not one of the harness's, or its documents cannot be had.
    """
    asked = [n for name in config.evaluate.tasks for n in (kobest.LABELS if name == GROUP else [name])]
    asked = list(dict.fromkeys(asked))
    if not set(asked) <= set(kobest.LABELS):
        known = manager(asked).all_subtasks
        for name in asked:
            if name not in known:
                near = nearest(name, [*kobest.LABELS, GROUP]) or nearest(name, known)
                raise EvaluateError(
                    f"evaluate.tasks: {name!r} is not a task of lm-evaluation-harness{near}",
                    hint=f"KoBEST's are {', '.join(kobest.LABELS)}; `lm-eval ls tasks` lists all {len(known):,}",
                )
    kobest.check_source(config, asked)
    return asked


def manager(tasks: list[str]) -> Any:
    """The harness's index of tasks; of KoBEST's folder alone where that is enough, which is 100 times faster."""
    import lm_eval.tasks
    from lm_eval.tasks import TaskManager

    if set(tasks) <= set(kobest.LABELS):
        folder = Path(lm_eval.tasks.__file__).parent / "kobest"
        return TaskManager(include_defaults=False, include_path=str(folder))
    return _every_task()


@lru_cache(maxsize=1)
def _every_task() -> Any:
    from lm_eval.tasks import TaskManager

    return TaskManager()


def load(config: Config, tasks: list[str]) -> dict[str, Any]:
    """The harness's task objects, reading our documents, with the config's number of solved examples."""
    # A member of a group takes the task's own definition and changes what is named here; a bare entry would not.
    specs = [kobest.overrides(config, task) if task in kobest.LABELS else {"task": task} for task in tasks]
    with quiet(), own_f1():
        members = manager(tasks).load([{"group": "kit19", "task": specs}])["tasks"]
    loaded: dict[str, Any] = {"tasks": {name: members[name] for name in tasks}, "groups": {}, "group_map": {}}
    for task in loaded["tasks"].values():
        task.set_config(key="num_fewshot", value=config.evaluate.num_fewshot)
        task.set_fewshot_seed(seed=_SEED)
    return loaded


def evaluate(lm: Any, loaded: dict[str, Any], limit: int | None) -> dict[str, Any]:
    """The harness's result of a model on loaded tasks, with every document's outcome under `samples`."""
    from lm_eval import evaluator

    with quiet():
        found: dict[str, Any] = evaluator.evaluate(
            lm, task_dict=loaded, limit=limit, log_samples=True, bootstrap_iters=1000
        )
    return found


def scores(found: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Per task the metrics by name, `n`, `num_fewshot`, and `stderr` by metric where there is one."""
    out = {}
    for task, result in found["results"].items():
        if task not in found["samples"]:
            continue  # a group's own line
        entry: dict[str, Any] = {
            "n": len(found["samples"][task]),
            "num_fewshot": found["n-shot"][task],
            "version": found["versions"].get(task),
            "stderr": {},
        }
        for key, value in result.items():
            metric, _, filtered = key.partition(",")
            if not filtered or isinstance(value, str):
                continue
            name = metric.removesuffix("_stderr")
            name = _NAMES.get(name, name) if task in kobest.LABELS else name
            (entry["stderr"] if metric.endswith("_stderr") else entry)[name] = value
        if "macro_f1" in entry:
            entry["stderr"]["macro_f1"] = macro_f1_stderr([sample["f1"] for sample in found["samples"][task]])
        out[task] = entry
    return out


def outcomes(found: Mapping[str, Any]) -> dict[str, dict[str, dict[str, float]]]:
    """Per task and metric each document's own figure, by the document's number: what a paired comparison needs."""
    out: dict[str, dict[str, dict[str, float]]] = {}
    for task, samples in found["samples"].items():
        names = [name for name in ("acc", "acc_norm") if all(name in sample for sample in samples)]
        out[task] = {name: {str(s["doc_id"]): float(s[name]) for s in samples} for name in names}
    return out


@contextmanager
def quiet() -> Iterator[None]:
    """Without the harness's and the datasets' own bars and notices; the actors show what takes time."""
    import datasets
    import lm_eval.api.task

    levels = {name: logging.getLogger(name).level for name in _LOGGERS}
    bar = lm_eval.api.task.tqdm
    bars = datasets.are_progress_bars_disabled()
    for name in _LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    lm_eval.api.task.tqdm = partial(bar, disable=True)  # it takes no argument for that
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        lm_eval.api.task.tqdm = bar
        if not bars:
            datasets.enable_progress_bars()
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


@contextmanager
def own_f1() -> Iterator[None]:
    """KoBEST's YAMLs have `f1` come from the hub as code. Only its name is used: the aggregation is their own."""
    import lm_eval.api.task

    get = lm_eval.api.task.get_metric
    lm_eval.api.task.get_metric = lambda name, from_hub=False: get(name, from_hub and name != "f1")
    try:
        yield
    finally:
        lm_eval.api.task.get_metric = get
