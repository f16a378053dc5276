"""The plan as text: one block a stage, figures a person can check."""

from __future__ import annotations

import json
from collections.abc import Iterator

from kit19_ray.preflight.findings import Findings
from kit19_ray.preflight.plan import Preflight
from kit19_ray.preflight.training import BestFacts, DeviceFacts

_RIGHTS = {"commercial use": "commercial", "derivatives": "derivatives"}
_UNITS = ("B", "KB", "MB", "GB", "TB")


def text(plan: Preflight) -> str:
    """The whole plan."""
    lines = [f"root      {plan.root.uri}", *_indent(plan.root.notes)]
    for found in plan.stages:
        state: str = found.state
        if state == "resumable":
            state += f" at step {found.facts['resumes_at_step']:,}"
        lines += ["", f"{found.name:<9} {state}{f', {found.uri}' if found.uri else ''}"]
        lines += _indent([*_BLOCKS[found.name](found), *(f"note: {note}" for note in found.notes)])
    return "\n".join(lines)


def json_text(plan: Preflight) -> str:
    """The whole plan as JSON."""
    return json.dumps(plan.record(), ensure_ascii=False, indent=1)


def size(number: float) -> str:
    """Bytes in the unit that leaves one to three digits before the point."""
    power = 0
    while number >= 999.5 and power < len(_UNITS) - 1:
        number, power = number / 1000, power + 1
    return f"{number:.0f} {_UNITS[power]}" if not power or number >= 99.95 else f"{number:.1f} {_UNITS[power]}"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _indent(lines: list[str]) -> list[str]:
    return [f"          {line}" for line in lines]


def _data(found: Findings) -> Iterator[str]:
    facts = found.facts
    if found.state == "not needed":
        yield "train.data names the prefix to train on"
        return
    yield (
        f"{_count(facts['tasks'], 'task')}, {_count(facts['files'], 'file')} there, {size(facts['bytes'])} to hash and "
        f"read, at most {facts['examples_at_most']:,} training examples"
    )
    for entry in facts["licences"]:
        kinds = [
            name
            for name, ok in (("commercial use", entry["commercial"]), ("derivatives", entry["derivatives"]))
            if not ok
        ]
        yield f"licence of {entry['source']} ({entry['licence']}): no {', no '.join(kinds)}"


def _train(found: Findings) -> Iterator[str]:
    facts = found.facts
    about = "about " if facts["estimated"] else ""
    if "steps" in facts:
        yield (
            f"batch {facts['batch_size']} = {_count(facts['workers'], 'worker')} x "
            f"{_count(facts['micro_batch_size'], 'row')} x {facts['accumulation']} accumulated; "
            f"rows of {facts['seq_len']:,} tokens"
        )
        yield (
            f"{about}{facts['rows']:,} rows, {facts['steps']:,} steps, {facts['warmup_steps']:,} of warm-up, "
            f"{facts['tokens']:,} tokens" + (" (an estimate until the data is built)" if about else "")
        )
    if "best" in facts:
        yield _best(facts["best"])
    if "parameters" in facts:
        trained = facts["trained_parameters"]
        of_them = f", {trained:,} trained" if trained != facts["parameters"] else ""
        yield f"{'about ' if facts['parameters_estimated'] else ''}{facts['parameters']:,} parameters{of_them}"
        for entry in facts["devices"]:
            yield from _device(entry)
    if "seconds" in facts:
        yield f"time: about {_duration(facts['seconds'])} at the speed of {facts['seconds_from']}"
    elif found.state != "finished":
        yield "time: not known, no run of this model is under the root"


def _best(facts: BestFacts) -> str:
    which = "highest" if facts["more_is_better"] else "lowest"
    limit = f" on {facts['limit']:,} documents" if facts["limit"] else ""
    until = f", until {facts['patience']} in a row are no better" if facts["patience"] else ""
    return f"exports the checkpoint with the {which} {facts['score']}{limit} of {facts['checkpoints']} scored{until}"


def _device(entry: DeviceFacts) -> Iterator[str]:
    parts = ", ".join(
        f"{name} {size(number)}" for name, number in entry["bytes"].items() if name not in ("total", "host")
    )
    yield (
        f"memory per worker on {entry['device']}, {entry['precision']}: about {size(entry['bytes']['total'])} ({parts})"
    )
    if entry["bytes"]["host"]:
        yield f"  and about {size(entry['bytes']['host'])} of its node's memory (train.offload)"
    kept = entry["storage"]
    each = _count(kept["checkpoints"], "checkpoint")
    yield f"  storage: {each} of {size(kept['checkpoint'])}, export {size(kept['export'])}"
    for card in entry.get("cards", []):
        if card["fits"]:
            yield f"  fits {card['gb']} GB"
            return
        how = "nothing within this batch size makes it fit"
        if "fits_with" in card:
            changes = " ".join(f"train.{key}={str(value).lower()}" for key, value in card["fits_with"].items())
            how = f"it would with {changes} ({size(card['then_bytes'])})"
        yield f"  does not fit {card['gb']} GB; {how}"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _evaluate(found: Findings) -> Iterator[str]:
    facts = found.facts
    if facts["tasks"]:
        where = "from the hub"
        if "documents" in facts:
            total = sum(facts["documents"].values())
            where = f"of the files that are here, {total:,} documents, {facts['choices']:,} choices"
        yield f"{_count(len(facts['tasks']), 'harness task')}, {facts['num_fewshot']}-shot; {where}"
    if facts["limit"]:
        yield f"at most {facts['limit']:,} documents of each task: not comparable"
    if "held_out" in facts:
        yield f"{facts['held_out']:,} held-out rows"


def _serve(found: Findings) -> Iterator[str]:
    facts = found.facts
    replicas = _count(facts["replicas"], "replica")
    yield f"{facts['served_name']} on {facts['address']}, {replicas}; model: {facts['model'] or 'the export of train'}"


def _cluster(found: Findings) -> Iterator[str]:
    for node in found.facts["nodes"]:
        seen = node["look"]
        parts = [f"{node['cpus']:g} CPUs", f"{node['gpus']:g} GPUs", f"{size(node['memory_bytes'])} of memory"]
        if seen is not None:
            cards = sorted({f"{gpu['name']}, {size(gpu['bytes'])}, driver {gpu['driver']}" for gpu in seen["gpus"]})
            parts += [*cards, f"{size(seen['disk_bytes'])} of disk free"]
            parts += [f"{name} {seen['versions'][name]}" for name in ("ray", "torch") if name in seen["versions"]]
        yield f"{node['address']}: {', '.join(parts)}"


_BLOCKS = {"data": _data, "train": _train, "evaluate": _evaluate, "serve": _serve, "cluster": _cluster}
