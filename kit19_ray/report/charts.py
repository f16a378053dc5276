"""Charts as PNG: losses over tokens, and scores with their errors. The same runs give the same bytes."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any, Literal

from kit19_ray.report.record import Cell, Comparison
from kit19_ray.report.runs import ComparedRun

_DPI = 120
_PER_ROW = 0.32  # inches of a score's row


_LOSSES: tuple[tuple[Literal["loss", "validation_loss"], float, float], ...] = (
    ("loss", 1.0, 0.5), ("validation_loss", 2.0, 1.0)
)  # fmt: skip
"""Figure of a metrics line, width and opacity of its curve."""


def draw(runs: Sequence[ComparedRun], found: Comparison) -> dict[str, bytes]:
    """File name -> PNG; a chart without anything to show is left out."""
    charts = {"loss.png": _losses(runs), "scores.png": _scores(found)}
    return {name: png for name, png in charts.items() if png is not None}


def _losses(runs: Sequence[ComparedRun]) -> bytes | None:
    """Training loss thin, validation loss thick, over the tokens trained on."""
    trained = {run.train_uri: run for run in runs if run.lines and run.train and run.train["steps"]}
    if not trained:
        return None
    figure, axes = _figure(8, 4.5)
    for number, run in enumerate(trained.values()):
        per_step = run.train["tokens"] / run.train["steps"]  # type: ignore[index]  # checked above
        for key, width, alpha in _LOSSES:
            points = [(line["step"] * per_step, line[key]) for line in run.lines if key in line]
            label = run.name.partition(" / ")[0] if key == "validation_loss" else None
            marker = "o" if len(points) == 1 else None
            axes.plot(*zip(*points), color=f"C{number}", linewidth=width, alpha=alpha, label=label, marker=marker)
    axes.set_xlabel("tokens")
    axes.set_ylabel("loss per completion token (thick: validation)")
    axes.legend()
    return _png(figure)


def _scores(found: Comparison) -> bytes | None:
    """Accuracies with one standard error, a row a task; hollow where marked; the paper's 1.3 B model as a cross."""
    rows = [(row, row["task"]) for row in found["scores"] if row["metric"] == "acc"]
    rows += [(row, f"{row['task']} (held out)") for row in found["held_out"] if row["metric"] == "accuracy"]
    rows += [(row, f"{row['task']} ({row['metric']} by a judge)") for row in found.get("judge", [])]
    if not rows:
        return None
    figure, axes = _figure(8, 1.2 + _PER_ROW * len(rows) * max(1, len(found["runs"]) / 2))
    for number, run in enumerate(found["runs"]):
        shift = (number - (len(found["runs"]) - 1) / 2) * 0.6 / len(found["runs"])
        cells = [(place + shift, cell) for place, (row, _) in enumerate(rows) if (cell := row["cells"][number])]
        for marked in (False, True):
            shown = [(place, cell) for place, cell in cells if _marked(cell) == marked]
            if shown:
                axes.errorbar(
                    [100 * cell["value"] for _, cell in shown], [place for place, _ in shown],
                    xerr=[100 * (cell["stderr"] or 0) for _, cell in shown], fmt="o", color=f"C{number}",
                    markerfacecolor="white" if marked else f"C{number}",
                    label=run["name"] + (" (other conditions, see the table)" if marked else ""),
                )  # fmt: skip
    kit = found["paper_models"].index("KIT 1.3B")
    paper = [(row["paper"][kit], place) for place, (row, _) in enumerate(rows) if row["paper"]]
    if paper:
        axes.scatter(*zip(*paper), marker="x", color="black", label="KIT 1.3B (paper)", zorder=3)
    axes.set_yticks(range(len(rows)), [name for _, name in rows])
    axes.invert_yaxis()
    axes.set_xlabel("accuracy, percent; a judge's grades as percent of the best")
    axes.legend()
    return _png(figure)


def _marked(cell: Cell) -> bool:
    """Whether the table says that a score cannot be compared with those beside it."""
    return bool(cell["differs_in"] or cell["unlike_paper"])


def _figure(width: float, height: float) -> Any:
    """A figure on the canvas that needs no display, and its axes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.grid(alpha=0.3)
    return figure, axes


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI, metadata={"Software": None})
    return buffer.getvalue()
