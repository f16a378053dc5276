"""lm-evaluation-harness as the judge: its task definitions and metrics, our documents and model."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from kit19_ray.artifacts.sample_file import ScoredSample
from kit19_ray.config.schema import Config, EvaluateConfig
from kit19_ray.errors import EvaluateError, nearest, quote
from kit19_ray.evaluate import documents, suites
from kit19_ray.redaction import first_line
from kit19_ray.utils.json_types import Json

SEED = 1234  # the harness's own default for the choice of solved examples
_KLUE_FILES = Path(__file__).parent / "klue"
_LOGGERS = ("lm_eval", "datasets", "absl", "filelock")
_HUB = (
    "the task's documents come from the Hugging Face hub: is it reached from here (HF_ENDPOINT names a mirror), does "
    "the data set need HF_TOKEN? Without a network, fill HF_HOME where there is one and set HF_HUB_OFFLINE=1"
)
_SHOWN = 8  # names of a long list in a message


HarnessMetrics = dict[str, Any]
"""A task's metrics as lm-evaluation-harness has them: `acc,none`, `acc_stderr,none`, ..., `sample_len`."""
HarnessSample = dict[str, Any]
"""A document with its requests and answers as lm-evaluation-harness logs it; its keys are that library's."""


@dataclass(frozen=True)
class Loaded:
    """The harness's objects behind `evaluate.tasks`."""

    tasks: dict[str, Any]
    """Every single task by its name, in the order asked."""
    groups: dict[str, Any]
    """Groups among what was asked, and the groups in them."""


@dataclass(frozen=True)
class Result:
    """One task at one number of solved examples, scored."""

    metrics: HarnessMetrics
    samples: list[HarnessSample]
    version: Any
    higher_is_better: dict[str, bool]


def names(config: Config) -> list[str]:
    """What `evaluate.tasks` names, suites as their members, each once; groups and tags stay what they are.

    Raises:
        EvaluateError: the harness knows no such name, or a task's documents cannot be had.
    """
    asked = suites.expand(config.evaluate.tasks)
    task_files(config.evaluate)
    if not set(asked) <= set(documents.TASKS):
        known = manager(config.evaluate, asked).all_tasks
        for name in asked:
            if name not in known:
                near = nearest(name, [*suites.SUITES, *documents.TASKS]) or nearest(name, known)
                raise EvaluateError(
                    f"evaluate.tasks: {quote(name)} is not a task, group or tag of lm-evaluation-harness{near}",
                    hint=f"suites are {', '.join(suites.SUITES)}; `lm-eval ls tasks` lists all {len(known):,} names",
                )
    documents.check_source(config, asked)
    return asked


def task_files(config: EvaluateConfig) -> dict[str, str]:
    """SHA-256 of each file below `evaluate.include_path`: what its tasks depend on.

    Raises:
        EvaluateError: a folder is not there.
    """
    found = {}
    for name in config.include_path:
        folder = Path(name).expanduser()
        if not folder.is_dir():
            raise EvaluateError(f"evaluate.include_path: {name} is not a folder")
        for path in sorted(p for p in folder.rglob("*") if p.suffix in (".yaml", ".py") and p.is_file()):
            found[path.relative_to(folder).as_posix()] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def manager(config: EvaluateConfig, asked: Sequence[str]) -> Any:
    """The harness's index of tasks; of KoBEST's folder and ours alone where that is enough, 100 times faster."""
    import lm_eval.tasks

    own = [str(Path(name).expanduser()) for name in config.include_path]
    if set(asked) <= set(documents.TASKS) and not own:
        return _index((str(Path(lm_eval.tasks.__file__).parent / "kobest"), str(_KLUE_FILES)), False)
    return _index((str(_KLUE_FILES), *own), True)


@lru_cache(maxsize=4)
def _index(folders: tuple[str, ...], include_defaults: bool) -> Any:
    from lm_eval.tasks import TaskManager

    with quiet():
        return TaskManager(include_defaults=include_defaults, include_path=list(folders))


def load(config: Config, asked: Sequence[str]) -> Loaded:
    """The harness's task objects, reading our documents where they are files.

    Raises:
        EvaluateError: a task's documents cannot be had.
    """
    index = manager(config.evaluate, asked)
    loaded = Loaded({}, {})
    for name in asked:
        # A member of a group takes the task's own definition and changes what is named here; a bare entry would not.
        ours = name in documents.TASKS and config.evaluate.source == "files"
        spec: Any = {"group": "kit19", "task": [documents.overrides(config, name)]} if ours else name
        try:
            with quiet(), own_f1():
                found = index.load([spec])
        except (OSError, ValueError, ImportError) as error:
            said = first_line(error, 300)
            raise EvaluateError(f"evaluate.tasks: {name}: {said}"[:300], hint="" if ours else _HUB) from error
        for task, made in found["tasks"].items():
            loaded.tasks.setdefault(task, made)
        loaded.groups.update({group: made for group, made in found["groups"].items() if group != "kit19"})
    _check(loaded.tasks)
    return loaded


def _check(tasks: Mapping[str, Any]) -> None:
    unsafe = [name for name, task in tasks.items() if getattr(task, "UNSAFE_CODE", False)]
    if unsafe:
        raise EvaluateError(f"evaluate.tasks: {', '.join(unsafe[:_SHOWN])} would run code that the model wrote")
    images = [name for name, task in tasks.items() if getattr(task, "MULTIMODAL", False)]
    if images:
        raise EvaluateError(f"evaluate.tasks: {', '.join(images[:_SHOWN])} ask about images; the model reads text")


def shots(task: Any, config: EvaluateConfig) -> list[int]:
    """The numbers of solved examples a task is scored with; 0 alone where its own definition says so."""
    return [0] if task.get_config("num_fewshot") == 0 else list(config.num_fewshot)


def evaluate(lm: Any, task: Any, num_fewshot: int, config: EvaluateConfig) -> Result:
    """One task at one number of solved examples, the first `limit` documents."""
    from lm_eval import evaluator

    name = task.task_name
    with asked_with(task, num_fewshot), quiet():
        found: Json = evaluator.evaluate(
            lm,
            task_dict={"tasks": {name: task}, "groups": {}, "group_map": {}},
            limit=config.limit,
            log_samples=True,
            bootstrap_iters=1000,
            system_instruction=config.system_instruction,
            apply_chat_template=config.apply_chat_template,
            fewshot_as_multiturn=config.fewshot_as_multiturn,
        )
    higher = {key: value for key, value in found["higher_is_better"].get(name, {}).items() if value is not None}
    return Result(found["results"][name], found["samples"][name], found["versions"].get(name), higher)


@contextmanager
def asked_with(task: Any, num_fewshot: int) -> Iterator[None]:
    """The task with so many solved examples, drawn from the seed anew, for the block."""
    before = task.get_config("num_fewshot")
    task.set_config(key="num_fewshot", value=num_fewshot)
    task.set_fewshot_seed(seed=SEED)
    try:
        yield
    finally:
        task.set_config(key="num_fewshot", value=before)


def samples(result: Result, task: Any, named: str, num_fewshot: int) -> Iterator[ScoredSample]:
    """What the model said, document by document.

    Args:
        named: the task's name in scores.json.
    """
    template = f"{task.task_name}@{result.version}"
    for found in result.samples:
        arguments = found["arguments"]
        sample: ScoredSample = {
            "section": "tasks",
            "task": named,
            "num_fewshot": num_fewshot,
            "doc_id": str(found["doc_id"]),
            "template": template,
            "prompt": str(arguments[0][0]),
            "prompt_hash": found["prompt_hash"],
            "gold": plain(found["target"]),
            "filter": found["filter"],
            "metrics": {name: plain(found[name]) for name in found["metrics"]},
        }
        if task.OUTPUT_TYPE == "multiple_choice":
            values = [float(value) for value, _ in found["filtered_resps"]]
            sample["choices"] = [str(given[1]) for given in arguments]
            sample["loglikelihoods"] = values
            sample["greedy"] = [bool(greedy) for _, greedy in found["filtered_resps"]]
            sample["answer"] = values.index(max(values))
        elif task.OUTPUT_TYPE == "generate_until":
            sample["said"] = str(found["resps"][0][0])
            sample["answer"] = str(plain(found["filtered_resps"][0]))
        else:
            sample["loglikelihoods"] = [float(plain(r)[0] if isinstance(plain(r), list) else r)
                                        for r in found["filtered_resps"]]  # fmt: skip
        yield sample


def plain(value: Any) -> Any:
    """A value of the harness as JSON has it: numpy's numbers as Python's, tuples as lists."""
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):
        return value.tolist()
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)


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
