"""The data card's plots, drawn from `statistics`: a function of the numbers, down to the bytes.

Names are written in ASCII, because no font with other letters can be counted on. The user's matplotlib settings do
not count, and no version or date is written into the files.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from kit19_ray.data.card.statistics import EDGES, FREE, Distribution, Statistics, TaskStatistics

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_Length = Literal["prompt_characters", "answer_characters", "tokens"]
_WIDTH = 9.0  # inches
_BAR = 0.28  # inches a task takes in a bar chart
_DPI = 100
_BLUE, _ORANGE, _GREY = "#0072b2", "#e69f00", "#c8c8c8"
# Okabe and Ito's colours, told apart by the colour-blind, then lighter ones.
_COLOURS = (
    "#0072b2",
    "#e69f00",
    "#009e73",
    "#cc79a7",
    "#56b4e9",
    "#d55e00",
    "#f0e442",
    "#7f7f7f",
    "#a6761d",
    "#b2abd2",
)
_STYLE: dict[Any, Any] = {"font.size": 8, "axes.titlesize": 9, "axes.spines.top": False, "axes.spines.right": False}
_LABELLED = 0.06  # a narrower piece of a bar has no room for its name


def draw(statistics: Statistics) -> dict[str, bytes]:
    """The PNG of each plot, by file name; `tokens.png` only where the build counted the tokens of examples."""
    import matplotlib

    plots: dict[str, Callable[[Statistics], Figure]] = {
        "tokens.png": _tokens,
        "characters.png": _characters,
        "labels.png": _labels,
        "templates.png": _templates,
        "packing.png": _packing,
        "drops.png": _drops,
    }
    if not any(task["train"]["tokens"] for task in statistics["tasks"].values()):
        del plots["tokens.png"]
    defaults = {key: value for key, value in matplotlib.rcParamsDefault.items() if not key.startswith("backend")}
    with matplotlib.rc_context(defaults | _STYLE):
        return {name: _png(plot(statistics)) for name, plot in plots.items()}


def _png(figure: Figure) -> bytes:
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=_DPI, metadata={"Software": None})
    return out.getvalue()


def _figure(height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(_WIDTH, height), layout="constrained")


def _ascii(name: str) -> str:
    return name.encode("ascii", "backslashreplace").decode()


def _tokens(statistics: Statistics) -> Figure:
    series: dict[_Length, tuple[str, str]] = {"tokens": ("tokens", _BLUE)}
    return _histograms(statistics, series, "Tokens per training example, prompt and answer", statistics["seq_len"])


def _characters(statistics: Statistics) -> Figure:
    series: dict[_Length, tuple[str, str]] = {
        "prompt_characters": ("prompt", _BLUE),
        "answer_characters": ("answer", _ORANGE),
    }
    return _histograms(statistics, series, "Characters per training example, without the prompt format", None)


def _histograms(
    statistics: Statistics, series: Mapping[_Length, tuple[str, str]], title: str, limit: int | None
) -> Figure:
    """One small histogram a task, on one axis; a dotted line at each median, a dashed one at `limit`."""
    from matplotlib.patches import Patch

    tasks = statistics["tasks"]
    columns = min(5, len(tasks))
    rows = -(-len(tasks) // columns)
    figure = _figure(1.3 * rows + 0.6)
    axes = figure.subplots(rows, columns, sharex=True, squeeze=False).flat
    found = [lengths for task in tasks.values() for key in series if (lengths := task["train"][key])]
    ends = max(1, min((d["min"] for d in found), default=1)) / 1.5, 1.5 * max([limit or 1, *(d["max"] for d in found)])
    for ax, (name, task) in zip(axes, tasks.items()):
        for key, (_, colour) in series.items():
            if lengths := task["train"][key]:
                _histogram(ax, lengths, colour)
        if limit:
            ax.axvline(limit, color="black", linewidth=0.8, linestyle="--")
        ax.set_title(_ascii(name), fontsize=8)
    for ax in list(figure.axes)[len(tasks) :]:
        ax.axis("off")
    for ax in figure.axes:
        ax.set_xscale("log", base=2)
        ax.set_xlim(*ends)
        ax.xaxis.set_major_formatter("{x:,.0f}")
        ax.tick_params(axis="x", labelrotation=45, labelsize=7)
        ax.set_yticks([])
        ax.spines["left"].set_visible(False)
    figure.suptitle(title + (f"; dashed: rows of {limit:,} tokens" if limit else "") + "; dotted: median", fontsize=9)
    if len(series) > 1:
        handles = [Patch(color=colour, alpha=0.6, label=label) for label, colour in series.values()]
        figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)
    return figure


def _histogram(ax: Axes, found: Distribution, colour: str) -> None:
    uppers = [int(edge) for edge in found["histogram"]]
    lowers = [max((e for e in EDGES if e < upper), default=0.7) for upper in uppers]
    shares = [count / found["count"] for count in found["histogram"].values()]
    widths = [upper - lower for lower, upper in zip(lowers, uppers)]
    ax.bar(lowers, shares, widths, align="edge", color=colour, alpha=0.6)
    ax.axvline(found["p50"], color=colour, linewidth=1, linestyle=":")


def _labels(statistics: Statistics) -> Figure:
    """A bar a task, in pieces of its labels."""
    tasks = statistics["tasks"]
    figure, ax = _bars(list(tasks), "Share of the training examples with each label")
    for place, task in enumerate(tasks.values()):
        total = task["train"]["examples"] or 1
        pieces = [
            (label, count / total, _GREY if label == FREE else _COLOURS[i % len(_COLOURS)])
            for i, (label, count) in enumerate(task["train"]["labels"].items())
        ]
        _stack(ax, place, pieces)
    ax.set_xlim(0, 1)
    ax.xaxis.set_major_formatter(_percent)
    return figure


def _stack(ax: Axes, place: int, pieces: Sequence[tuple[str, float, str]]) -> None:
    start = 0.0
    for name, share, colour in pieces:
        ax.barh(place, share, left=start, color=colour, edgecolor="white", linewidth=0.5)
        if share > max(_LABELLED, 0.008 * len(name)):
            ax.text(start + share / 2, place, _ascii(name), ha="center", va="center", fontsize=7, color=_ink(colour))
        start += share


def _ink(colour: str) -> str:
    """Black or white, whichever is read on `colour`."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else "white"


def _bars(names: Sequence[str], title: str) -> tuple[Figure, Axes]:
    figure = _figure(_BAR * len(names) + 0.9)
    ax = figure.subplots()
    _name_bars(ax, names)
    ax.set_title(title, loc="left")
    return figure, ax


def _name_bars(ax: Axes, names: Sequence[str]) -> None:
    ax.set_yticks(range(len(names)), [_ascii(name) for name in names])
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.tick_params(axis="y", length=0)


def _percent(share: float, _: float) -> str:
    return f"{round(100 * share, 1):g}%"


def _templates(statistics: Statistics) -> Figure:
    """A row a task, a cell a template in the order of the task file, with the number of examples."""
    from matplotlib.patches import Patch

    tasks = statistics["tasks"]
    figure, ax = _bars(list(tasks), "Training examples under each template, in the order of the task file")
    most = max((len(task["train"]["templates"]) for task in tasks.values()), default=1)
    for place, task in enumerate(tasks.values()):
        used = task["train"]["templates"].values()
        peak = max((t["examples"] for t in used), default=0) or 1
        for column, template in enumerate(used):
            colour = _BLUE if template["kind"] == "closed" else _ORANGE
            ax.barh(place, 0.96, 0.9, left=column + 0.52, color=colour, alpha=0.1 + 0.6 * template["examples"] / peak)
            ax.text(column + 1, place, f"{template['examples']:,}", ha="center", va="center", fontsize=7)
    ax.set_xlim(0.5, most + 0.5)
    ax.set_xticks(range(1, most + 1))
    ax.xaxis.tick_top()
    ax.set_frame_on(False)
    ax.tick_params(length=0)
    kinds = (("closed: the prompt lists the choices", _BLUE), ("open: it does not", _ORANGE))
    handles = [Patch(color=colour, alpha=0.6, label=label) for label, colour in kinds]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False)
    return figure


def _packing(statistics: Statistics) -> Figure:
    """Above how full the rows are, below which task the tokens belong to."""
    packing, tasks = statistics["packing"], statistics["tasks"]
    figure = _figure(_BAR * (len(packing) + len(tasks)) + 1.6)
    above, below = figure.subplots(2, 1, height_ratios=[len(packing) + 0.6, len(tasks)])
    parts: tuple[tuple[Literal["learned", "masked", "padding"], str], ...] = (
        ("learned", "#009e73"), ("masked", "#56b4e9"), ("padding", _GREY)
    )  # fmt: skip
    for place, split in enumerate(packing.values()):
        whole = sum(split[part] for part, _ in parts) or 1
        _stack(above, place, [(f"{part} {split[part] / whole:.1%}", split[part] / whole, c) for part, c in parts])
    _name_bars(above, [f"{name}\n{split['efficiency']:.1%} full" for name, split in packing.items()])
    above.set_xlim(0, 1)
    above.xaxis.set_major_formatter(_percent)
    above.set_title("Tokens of the packed rows", loc="left")
    total = sum(task["source"]["tokens"] for task in tasks.values()) or 1
    shares = [task["source"]["tokens"] / total for task in tasks.values()]
    below.barh(range(len(tasks)), shares, color=_BLUE)
    for place, (share, task) in enumerate(zip(shares, tasks.values())):
        below.text(share, place, f" {share:.1%}, {task['source']['tokens']:,}", va="center", fontsize=7)
    _name_bars(below, list(tasks))
    below.set_xlim(0, 1.2 * max(shares, default=1) or 1)
    below.xaxis.set_major_formatter(_percent)
    below.set_title("Tokens of each task, prompts included", loc="left")
    return figure


def _drops(statistics: Statistics) -> Figure:
    """A bar a task: which share of the source's rows did not become a record of its own, and why."""
    from matplotlib.patches import Patch

    tasks = statistics["tasks"]
    totals: Counter[str] = Counter()
    for task in tasks.values():
        totals.update(dict(_lost(task)))
    kept = [reason for reason, n in sorted(totals.items(), key=lambda item: (-item[1], item[0])) if n]
    shown = kept[: len(_COLOURS)] if len(kept) <= len(_COLOURS) else [*kept[: len(_COLOURS) - 1], "other"]
    colours = dict(zip(shown, _COLOURS))
    figure, ax = _bars(list(tasks), "Share of the source's rows that were dropped, or equal an earlier one")
    longest = 0.0
    for place, task in enumerate(tasks.values()):
        rows = task["source"]["rows"] or 1
        lost: Counter[str] = Counter()
        for reason, n in _lost(task):
            lost[reason if reason in colours else "other"] += n
        start = 0.0
        for reason in shown:
            ax.barh(place, lost[reason] / rows, left=start, color=colours[reason])
            start += lost[reason] / rows
        ax.text(start, place, f" {lost.total():,} of {task['source']['rows']:,}", va="center", fontsize=7)
        longest = max(longest, start)
    ax.set_xlim(0, 1.25 * longest or 1)
    ax.xaxis.set_major_formatter(_percent)
    handles = [Patch(color=colour, label=_ascii(reason)) for reason, colour in colours.items()]
    if handles:
        figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False)
    return figure


def _lost(task: TaskStatistics) -> Iterator[tuple[str, int]]:
    yield "repeats", task["source"]["repeats"]
    yield from task["source"]["dropped"].items()
