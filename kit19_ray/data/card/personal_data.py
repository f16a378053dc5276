"""The card's note on personal data: what was masked, what stays, and what whoever passes it on has to mind."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from kit19_ray.tasks.task import Task

_WRITTEN = ("hate_speech", "sentiment_analysis")  # categories of what people wrote, not for a corpus


def notes(tasks: Mapping[str, Task]) -> Iterator[str]:
    """A line for each kind of source."""
    written = [
        name for name, task in tasks.items() if task.spec.category in _WRITTEN or task.source.reader == "petitions"
    ]
    if written:
        yield (
            f"- People wrote these in public, not for a corpus: {', '.join(written)}. No author is named, but what "
            "they say of others may be personal. The rows are published by their sources; nothing was added to them."
        )
    petitions = [name for name, task in tasks.items() if task.source.reader == "petitions"]
    if petitions:
        yield (
            f"- {', '.join(petitions)}: telephone numbers, resident registration numbers and mail addresses are "
            "replaced by `***`, and petitions whose title the office masked are left out. Names in the text stay."
        )
    named = [name for name, task in tasks.items() if task.source_id in ("kowiki_text", "lbox_summarization")]
    if named:
        yield f"- {', '.join(named)}: names of people stay as the encyclopedia and the published judgments have them."
    yield (
        "- Nothing else was looked for. Whoever passes the rows on answers for them; who is asked to take somebody out "
        "finds the row by `source_id` and leaves it out of the source before building again."
    )
