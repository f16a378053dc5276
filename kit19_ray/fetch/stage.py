"""`kit19 fetch`: every wanted file at once, each under its name only when it is known to be whole."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import httpx

from kit19_ray.config.schema import Config
from kit19_ray.errors import FetchError, StorageError, UserError, quote
from kit19_ray.fetch import consent, partial, plan, present
from kit19_ray.fetch.display import Downloads
from kit19_ray.fetch.download import Patience, client, download
from kit19_ray.fetch.plan import Item
from kit19_ray.io import storage
from kit19_ray.utils.console import progress, say, table_text

FETCHED, REPLACED = "fetched", "replaced"
_SAID: dict[str, str] = {
    "absent": "to fetch",
    "other": "to fetch: another file is there",
    "whole": "there",
    "unverified": "there, unverified: no size or hash is known",
}


@dataclass
class FetchOutcome:
    """What became of one wanted file.

    Attributes:
        state: a `present.State`, or fetched, or replaced.
        failure: why it could not be fetched.
    """

    item: Item
    state: str
    failure: UserError | None = None

    @property
    def wanted(self) -> bool:
        """Whether it must be fetched."""
        return self.state in ("absent", "other")

    @property
    def said(self) -> str:
        """The state for people."""
        if self.failure:
            return "failed"
        by_hand = self.wanted and self.item.origin is None
        return "to fetch by hand" if by_hand else _SAID.get(self.state, self.state)


def run(
    config: Config,
    names: Sequence[str] = (),
    *,
    accepted: bool = False,
    parallel: int = 8,
    patience: Patience | None = None,
) -> str:
    """Fetches what is not there, and returns the sources' URI.

    Args:
        names: sources or files; none of them means what the config needs.
        accepted: the licences are accepted; otherwise the user is asked.
        parallel: downloads at once.

    Raises:
        FetchError: the licences were not accepted, or files could not be fetched: all of them are listed.
        SourceError: an unknown name.
        StorageError: the sources' folder cannot be read or written.
    """
    _require_bucket(plan.sources_uri(config))
    outcomes = survey(config, names)
    todo = [o for o in outcomes if o.wanted and o.item.origin is not None]
    where = partial.folder(plan.sources_uri(config))
    if todo:
        consent.ask([o.item for o in todo], accepted)
        asyncio.run(_all(todo, where, parallel, patience or Patience()))
    for outcome in outcomes:
        if not outcome.wanted and outcome.item.origin is not None:
            partial.Partial(where, outcome.item.origin).sweep()
    with suppress(OSError):  # not empty: it holds what failed downloads received
        where.rmdir()
    _summarise(outcomes)
    failed = [o for o in todo if o.failure]
    if failed:
        raise FetchError(_failures(failed, len(todo)))
    return plan.sources_uri(config)


def _require_bucket(base: str) -> None:
    """A listing says nothing of a bucket that is not there, and a download is too long to find out at its end."""
    bucket = "/".join(base.split("/")[:3])
    if bucket.startswith("s3://") and not storage.exists(bucket):
        raise StorageError(f"{base}: there is no bucket {quote(bucket.removeprefix('s3://'))}", hint="create it first")


def survey(config: Config, names: Sequence[str]) -> list[FetchOutcome]:
    """Every wanted file and what is at its target."""
    items = plan.items(config, names)
    with progress("checking what is there", len(items)) as done:
        states = present.states(items, done)
    return [FetchOutcome(item, state) for item, state in zip(items, states, strict=True)]


async def _all(todo: list[FetchOutcome], where: Path, parallel: int, patience: Patience) -> None:
    places = asyncio.Semaphore(parallel)
    total = sum(o.item.origin.bytes or 0 for o in todo if o.item.origin is not None)
    with Downloads(total) as bars:
        async with client(patience) as http:
            await asyncio.gather(*(_one(outcome, where, places, http, bars, patience) for outcome in todo))


async def _one(
    outcome: FetchOutcome,
    where: Path,
    places: asyncio.Semaphore,
    http: httpx.AsyncClient,
    bars: Downloads,
    patience: Patience,
) -> None:
    item = outcome.item
    assert item.origin is not None
    try:
        async with places, partial.Partial(where, item.origin) as held:
            if held.waited and (await asyncio.to_thread(present.states, [item]))[0] in ("whole", "unverified"):
                outcome.state = "whole"  # by the run that was waited for
            else:
                with bars.file(item.name, item.origin.bytes) as progress:
                    progress(held.size)
                    await download(http, item.origin, held, patience, progress)
                    known = (item.bytes, item.sha256) if item.member else ()
                    await asyncio.to_thread(held.deliver, item.origin, item.member, item.target, *known)
                outcome.state = REPLACED if outcome.state == "other" else FETCHED
    except UserError as failure:
        outcome.failure = failure
    except OSError as error:
        outcome.failure = FetchError(f"{item.name}: {error}")
    bars.line(f"{item.name}: {outcome.said}")


def _failures(failed: list[FetchOutcome], tried: int) -> str:
    lines = [f"{len(failed)} of {tried} files could not be fetched; the others are there"]
    for outcome in failed:
        item = outcome.item
        assert outcome.failure is not None
        lines.append(f"  {item.name}: " + str(outcome.failure).replace("\n", "\n    "))
        lines.append(f"    by hand: see {item.source.homepage}, put it at {item.target}")
    return "\n".join(lines)


def _summarise(outcomes: list[FetchOutcome]) -> None:
    rows = []
    for name in dict.fromkeys(o.item.source_id for o in outcomes):
        mine = [o for o in outcomes if o.item.source_id == name]
        counts = {
            "fetched": sum(o.state in (FETCHED, REPLACED) for o in mine),
            "there": sum(o.state in ("whole", "unverified") for o in mine),
            "failed": sum(o.failure is not None for o in mine),
            "by hand": sum(o.wanted and o.item.origin is None for o in mine),
        }
        rows.append((name, *(str(n or "") for n in counts.values())))
    columns = ("fetched", "there", "failed", "by hand")
    say(table_text(("source", *columns), rows, right=columns))
    for outcome in outcomes:
        if outcome.wanted and outcome.item.origin is None:
            item = outcome.item
            say(f"{item.name}: by hand: see {item.source.homepage}, put it at {item.target}")


def listing(config: Config, names: Sequence[str], as_json: bool) -> str:
    """What a run would do, file by file, as text or JSON."""
    outcomes = survey(config, names)
    if as_json:
        return json.dumps([_row(o) for o in outcomes], ensure_ascii=False, indent=1)
    rows = []
    for outcome in outcomes:
        item = outcome.item
        known = item.origin.bytes if item.origin else item.bytes
        rows.append((item.name, f"{known:,}" if known else "?", item.source.licence.name, outcome.said))
    return table_text(("file", "bytes", "licence", "state"), rows, right=("bytes",))


def _row(outcome: FetchOutcome) -> dict[str, object]:
    item = outcome.item
    return {
        "source": item.source_id,
        "path": item.path,
        "target": item.target,
        "url": item.origin.shown if item.origin else None,
        "member": item.member,
        "bytes": item.bytes,
        "sha256": item.sha256,
        "licence": item.source.licence.name,
        "state": outcome.state,
        "by_hand": item.origin is None,
        "homepage": item.source.homepage,
    }
