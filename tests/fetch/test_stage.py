"""`kit19 fetch` from a local server to file:// and s3://: killed, twice at once, each file failing in its own way."""

from __future__ import annotations

import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from kit19_ray.config.schema import Config
from kit19_ray.errors import FetchError, SourceError, StorageError, TaskError
from kit19_ray.fetch import partial, plan, stage
from kit19_ray.io import storage

from .conftest import QUICK, Handler, Origin, payload, published, task_words

Configured = Callable[..., Config]


@pytest.fixture(params=["file", pytest.param("s3", marks=pytest.mark.s3)])
def root(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("KIT19_CACHE", str(tmp_path / "cache"))
    return str(request.getfixturevalue("s3_root")) if request.param == "s3" else f"file://{tmp_path}/실행"


def below(root: str) -> dict[str, bytes]:
    return {f.path: storage.read_bytes(storage.join(root, f.path)) for f in storage.list_files(root)}


def kept(tmp_path: Path) -> list[Path]:
    """Unfinished downloads, wherever they are."""
    return [
        p for p in tmp_path.rglob("*") if p.suffix in (".partial", ".validator", ".member") or p.name == ".downloads"
    ]


def fetch(config: Config, *names: str) -> str:
    return stage.run(config, names, accepted=True, patience=QUICK)


def test_every_file_companions_and_folders_too_and_then_nothing(
    origin: Origin, configured: Configured, root: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bodies = {name: payload(n * 50_000, n) for n, name in enumerate(["a.tsv", "sub/b.tsv", "topic/b.tsv", "c"], 1)}
    beside = published(origin, "topic/b.tsv", bodies["topic/b.tsv"])
    mine = [
        published(origin, "a.tsv", bodies["a.tsv"]),
        published(
            origin,
            "sub/b.tsv",
            bodies["sub/b.tsv"],
            companion="topic/b.tsv",
            companion_url=beside["url"],
            companion_bytes=beside["bytes"],
            companion_sha256=beside["sha256"],
        ),
    ]
    config = configured(root, mine=mine, other=[published(origin, "c", bodies["c"], bytes=None, sha256=None)])
    origin.faults = {"/a.tsv": [lambda h, b: h.give(b, 20_000)], "/c": [lambda h, b: h.fail(503)]}
    uri = fetch(config)
    assert uri == storage.join(root, "sources")
    whole = {f"mine/{n}": b for n, b in bodies.items() if n != "c"} | {"other/c": bodies["c"]}
    assert below(uri) == whole
    assert kept(tmp_path) == []
    asked = len(origin.seen)
    said = capsys.readouterr().err
    assert "Licence of mine <https://example.org/licence>" in said and "commercial use" in said
    assert fetch(config) == uri
    assert len(origin.seen) == asked
    assert "Licence" not in capsys.readouterr().err


def test_every_failure_is_listed_at_once_and_the_rest_is_there(
    origin: Origin, configured: Configured, root: str, tmp_path: Path
) -> None:
    files = [published(origin, name, payload(40_000, n)) for n, name in enumerate(["good", "wrong", "gone", "down"])]
    origin.files["/wrong"] = payload(40_000, 9)
    del origin.files["/gone"]
    origin.faults["/down"] = [lambda h, b: h.fail(500)] * QUICK.attempts
    with pytest.raises(FetchError) as caught:
        fetch(configured(root, mine=files))
    said = str(caught.value)
    assert "3 of 4 files could not be fetched; the others are there" in said
    assert f"mine/gone: {origin.url('/gone')}: HTTP 404 Not Found" in said
    assert f"mine/down: {origin.url('/down')}: HTTP 500 Internal Server Error (5 attempts)" in said
    for body in (payload(40_000, 9), payload(40_000, 1)):
        assert hashlib.sha256(body).hexdigest() in said
    assert f"see https://example.org/mine, put it at {storage.join(root, 'sources/mine/gone')}" in said
    assert list(below(storage.join(root, "sources"))) == ["mine/good"]
    assert kept(tmp_path) == []
    fetch(configured(root, mine=[files[0], files[3]]))
    assert set(below(storage.join(root, "sources"))) == {"mine/good", "mine/down"}


def test_another_file_at_the_target_is_replaced_when_the_right_one_is_whole(
    origin: Origin, configured: Configured, root: str, capsys: pytest.CaptureFixture[str]
) -> None:
    body = payload(30_000)
    config = configured(root, mine=[published(origin, "a", body)])
    target = storage.join(root, "sources/mine/a")
    for wrong in (body[:-1], b"x" + body[1:]):
        storage.write_bytes(target, wrong)
        origin.files["/a"] = payload(30_000, 1)
        with pytest.raises(FetchError, match="1 of 1 files could not be fetched"):
            fetch(config)
        assert storage.read_bytes(target) == wrong
        origin.files["/a"] = body
        fetch(config)
        assert storage.read_bytes(target) == body
        assert "mine/a: replaced" in capsys.readouterr().err


def zipped(**members: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, body in members.items():
            archive.writestr(name, body)
    return out.getvalue()


def tarred(**members: bytes | None) -> bytes:
    """A .tar.gz; a member without bytes is a link out of the folder."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, body in members.items():
            info = tarfile.TarInfo(name)
            if body is None:
                info.type, info.linkname = tarfile.SYMTYPE, "../../outside"
            else:
                info.size = len(body)
            archive.addfile(info, io.BytesIO(body or b""))
    return out.getvalue()


def packed(origin: Origin, path: str, archive: bytes, member: str, name: str) -> dict[str, object]:
    entry = published(origin, name, archive)
    parts = {key: entry[key] for key in ("url", "bytes", "sha256")}
    return {"path": path, "split": "train", "archive": parts | {"member": member}}


def test_members_of_archives(origin: Origin, configured: Configured, root: str, tmp_path: Path) -> None:
    body = payload(3 << 20)
    evil = {"../../outside": b"x", "/abs": b"x"}
    files = [
        packed(origin, "a.train", zipped(**evil, train=body), "train", "a.zip"),
        packed(origin, "ko/b.tsv", tarred(**evil, **{"x/b.tsv": body, "x/link": None}), "x/b.tsv", "b.tar.gz"),
    ]
    uri = fetch(configured(root, mine=files))
    assert below(uri) == {"mine/a.train": body, "mine/ko/b.tsv": body}
    assert kept(tmp_path) == []
    assert not (tmp_path / "outside").exists()


@pytest.mark.parametrize(
    ("archive", "member", "name", "said"),
    [
        (zipped(tran=b"x"), "train", "a.zip", "has no file 'train' (did you mean 'tran'?)"),
        (tarred(tran=b"x"), "train", "a.tar.gz", "has no file 'train' (did you mean 'tran'?)"),
        (tarred(train=None), "train", "a.tar.gz", "has no file 'train'"),
        (b"no archive", "train", "a.zip", "cannot be unpacked: File is not a zip file"),
        (b"no archive", "train", "a.tar.gz", "cannot be unpacked: "),
        (tarred(train=payload(1 << 20))[:-200_000], "train", "a.tar.gz", "cannot be unpacked: "),
        (zipped(train=payload(1 << 20)).replace(payload(64)[32:], bytes(32)), "train", "a.zip", "cannot be unpacked: "),
    ],
)
def test_archives_that_cannot_be_unpacked(
    origin: Origin, configured: Configured, tmp_path: Path, archive: bytes, member: str, name: str, said: str
) -> None:
    config = configured(tmp_path / "root", mine=[packed(origin, "a", archive, member, name)])
    with pytest.raises(FetchError) as caught:
        fetch(config)
    assert said in str(caught.value)
    assert below(str(tmp_path / "root")).keys() <= {p.relative_to(tmp_path / "root").as_posix() for p in kept(tmp_path)}


def kit19(*words: str, **options: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "kit19_ray", "fetch", *words]
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, text=True, **(pipes | options))  # type: ignore[call-overload,no-any-return]


def trickle(bodies: threading.Event) -> Callable[[Handler, bytes], None]:
    """Sends half of the body, says so, and then waits to be killed."""

    def answer(handler: Handler, body: bytes) -> None:
        handler.head(200, len(body), ETag=handler.etag(body))
        handler.wfile.write(body[: len(body) // 2])
        bodies.set()
        time.sleep(30)

    return answer


@pytest.mark.parametrize("signal_", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_fetch_that_is_killed_goes_on_where_it_stopped(
    origin: Origin, root: str, tmp_path: Path, signal_: signal.Signals
) -> None:
    body = payload(4 << 20)
    words = task_words(tmp_path / "tasks", mine=[published(origin, "a", body)])
    sent = threading.Event()
    origin.faults["/a"] = [trickle(sent)]
    command = ["--accept-licences", f"root={root}", *words]
    first = kit19(*command)
    assert sent.wait(30)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and not any(p.suffix == ".partial" and p.stat().st_size for p in kept(tmp_path)):
        time.sleep(0.02)
    first.send_signal(signal_)
    said = first.communicate(timeout=10)[1]
    assert first.returncode == (130 if signal_ == signal.SIGINT else -signal_)
    assert "Traceback" not in said
    assert below(storage.join(root, "sources/mine")) == {}
    second = kit19(*command)
    out, said = second.communicate(timeout=60)
    assert (second.returncode, out) == (0, storage.join(root, "sources") + "\n"), said
    assert below(storage.join(root, "sources")) == {"mine/a": body}
    assert kept(tmp_path) == []
    start = int(str(origin.seen[-1].range)[6:-1])
    assert 0 < start <= len(body) // 2


def test_what_a_kill_left_beside_a_whole_target_is_removed(
    origin: Origin, configured: Configured, root: str, tmp_path: Path
) -> None:
    config = configured(root, mine=[published(origin, "a", b"a\n")])
    storage.write_bytes(storage.join(root, "sources/mine/a"), b"a\n")
    where = partial.folder(storage.join(root, "sources"))
    where.mkdir(parents=True)
    (item,) = plan.items(config)
    assert item.origin is not None
    left = partial.Partial(where, item.origin).path
    for suffix in (".partial", ".validator", ".member"):
        left.with_suffix(suffix).write_text("x")
    fetch(config)
    assert kept(tmp_path) == [] and origin.seen == []


def test_two_fetches_of_one_target_at_once(origin: Origin, root: str, tmp_path: Path) -> None:
    body = payload(2 << 20)
    words = task_words(tmp_path / "tasks", mine=[published(origin, "a", body), published(origin, "b", body)])

    def slow(handler: Handler, data: bytes) -> None:
        handler.head(200, len(data), ETag=handler.etag(data))
        handler.wfile.write(data[: len(data) // 2])
        time.sleep(1.5)
        handler.wfile.write(data[len(data) // 2 :])

    origin.faults["/a"] = [slow]
    both = [kit19("--accept-licences", f"root={root}", *words) for _ in range(2)]
    for one in both:
        out, said = one.communicate(timeout=60)
        assert (one.returncode, out) == (0, storage.join(root, "sources") + "\n"), said
    assert below(storage.join(root, "sources")) == {"mine/a": body, "mine/b": body}
    assert [s.path for s in origin.seen].count("/a") == 1
    assert kept(tmp_path) == []


def test_without_a_terminal_the_licences_must_be_accepted_in_writing(origin: Origin, tmp_path: Path) -> None:
    words = task_words(tmp_path / "tasks", mine=[published(origin, "a", b"a\n")])
    asked = kit19(f"root={tmp_path}/root", *words)
    out, said = asked.communicate(timeout=60)
    assert (asked.returncode, out) == (2, "")
    assert "Licence of mine" in said and "add --accept-licences" in said
    assert origin.seen == []


@pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("YES\n", 0), ("n\n", 2), ("\n", 2)])
def test_at_a_terminal_the_user_is_asked(origin: Origin, tmp_path: Path, answer: str, code: int) -> None:
    words = task_words(tmp_path / "tasks", mine=[published(origin, "a", b"a\n")])
    ours, theirs = os.openpty()
    asked = kit19(f"root={tmp_path}/root", *words, stdin=theirs)
    os.write(ours, answer.encode())
    _, said = asked.communicate(timeout=60)
    os.close(ours)
    os.close(theirs)
    assert asked.returncode == code, said
    assert "Fetch 1 files (0.0 MB) under these licences? [y/N]" in said
    assert ("nothing was fetched" in said) == (code == 2)
    assert len(origin.seen) == (code == 0)


def test_what_must_be_fetched_by_hand_is_said(
    origin: Origin, configured: Configured, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [
        {"path": "hand.tsv", "split": "train"},
        {"path": "part_*", "split": "train", "optional": True},
        {"path": "instead.tsv", "split": "train", "optional": True, "alternative": True},
        published(origin, "a", b"a\n"),
    ]
    config = configured(tmp_path / "root", mine=files)
    fetch(config)
    said = capsys.readouterr().err
    for name in ("hand.tsv", "part_*"):
        assert (
            f"mine/{name}: by hand: see https://example.org/mine, put it at {config.root}/sources/mine/{name}" in said
        )
    assert "instead.tsv" not in said
    for name in ("hand.tsv", "part_1"):
        storage.write_text(storage.join(config.root, "sources/mine", name), "a\n")
    fetch(config)
    assert "by hand:" not in capsys.readouterr().err


def test_the_listing_writes_nothing(origin: Origin, configured: Configured, tmp_path: Path) -> None:
    body = b"a\n1\n"
    files = [published(origin, name, body) for name in ("absent", "there", "other")]
    files += [published(origin, "unknown", body, bytes=None, sha256=None), {"path": "hand", "split": "train"}]
    config = configured(tmp_path / "root", mine=files)
    for name, data in {"there": body, "other": b"b\n1\n", "unknown": b"?"}.items():
        storage.write_bytes(storage.join(config.root, "sources/mine", name), data)
    rows = json.loads(stage.listing(config, [], as_json=True))
    assert {r["path"]: r["state"] for r in rows} == {
        "absent": "absent",
        "there": "whole",
        "other": "other",
        "unknown": "unverified",
        "hand": "absent",
    }
    assert [r["path"] for r in rows if r["by_hand"]] == ["hand"]
    assert rows[0] | {"bytes": 4, "licence": "Licence of mine", "url": origin.url("/absent")} == rows[0]
    text = stage.listing(config, [], as_json=False)
    assert [line.split("mine ")[-1].strip() for line in text.splitlines()[1:]] == [
        "to fetch",
        "there",
        "to fetch: another file is there",
        "there, unverified: no size or hash is known",
        "to fetch by hand",
    ]
    assert origin.seen == []


def test_only_what_is_named(origin: Origin, configured: Configured, tmp_path: Path) -> None:
    mine = [published(origin, "a", b"a\n"), published(origin, "b", b"b\n", alternative=True, optional=True)]
    config = configured(tmp_path / "root", mine=mine, other=[published(origin, "c", b"c\n")])
    fetch(config, "mine")
    assert [s.path for s in origin.seen] == ["/a"]
    fetch(config, "mine/b", "mine", "mine/b")
    assert [s.path for s in origin.seen] == ["/a", "/b"]
    fetch(config)
    assert [s.path for s in origin.seen] == ["/a", "/b", "/c"]
    with pytest.raises(SourceError, match=r"'nsmcc' names no source \(did you mean 'nsmc'\?\); known: apeach, "):
        fetch(config, "nsmcc")
    with pytest.raises(SourceError, match=r"source 'mine' has no file 'bb' \(did you mean 'b'\?\); it has a, b"):
        fetch(config, "mine/bb")


def test_data_sources_names_another_folder(origin: Origin, configured: Configured, tmp_path: Path) -> None:
    config = configured(tmp_path / "root", f"data.sources={tmp_path}/elsewhere", mine=[published(origin, "a", b"a\n")])
    assert fetch(config) == f"file://{tmp_path}/elsewhere"
    assert (tmp_path / "elsewhere/mine/a").read_bytes() == b"a\n"
    with pytest.raises(FetchError, match="the embedded samples are part of the package"):
        fetch(configured(tmp_path / "root", "data.sources=samples", mine=[published(origin, "a", b"a\n")]))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"path": "../outside"}, "must be a path below the source's folder"),
        ({"path": "/outside"}, "must be a path below the source's folder"),
        ({"path": "a/../../outside"}, "must be a path below the source's folder"),
        ({"path": "a//b"}, "must be a path below the source's folder"),
        ({"companion": "../outside"}, "must be a path below the source's folder"),
        ({"url": "file:///etc/passwd"}, "String should match pattern"),
        ({"archive": {"url": "http://x/a.rar", "member": "a"}, "url": None}, "must end in .zip, .tar or .tar.gz"),
        ({"archive": {"url": "http://x/a.zip", "member": "a"}}, "`url` and `archive` exclude each other"),
        ({"path": "a*"}, "a pattern has no url, archive or sha256"),
    ],
)
def test_a_source_that_leads_elsewhere_is_refused(
    origin: Origin, configured: Configured, tmp_path: Path, changes: dict[str, object], said: str
) -> None:
    entry = {k: v for k, v in (published(origin, "a", b"a\n") | changes).items() if v is not None}
    with pytest.raises(TaskError, match=said):
        fetch(configured(tmp_path / "root", mine=[entry]))
    assert origin.seen == []


def test_a_source_id_cannot_lead_elsewhere(origin: Origin, configured: Configured, tmp_path: Path) -> None:
    entry = published(origin, "outside", b"a\n")
    with pytest.raises(SourceError, match=r"source '\.\.': an id is letters, digits"):
        fetch(configured(tmp_path / "root", **{"..": [entry]}))
    assert origin.seen == []


def test_a_target_that_cannot_be_written_is_one_of_the_failures(
    origin: Origin, configured: Configured, tmp_path: Path
) -> None:
    storage.write_text(str(tmp_path / "root/sources/mine/sub"), "a file where a folder must be")
    config = configured(tmp_path / "root", mine=[published(origin, "sub/a", b"a\n"), published(origin, "b", b"b\n")])
    with pytest.raises(FetchError, match=r"1 of 2 files .*\n  mine/sub/a: file://.*/sub/a: .*(directory|exists)"):
        fetch(config)
    assert (tmp_path / "root/sources/mine/b").read_bytes() == b"b\n"


@pytest.mark.s3
def test_a_bucket_that_is_not_there_is_said_before_anything_is_fetched(
    origin: Origin, configured: Configured, s3_root: str
) -> None:
    del s3_root
    with pytest.raises(StorageError, match="s3://no-such-bucket/x/sources: there is no bucket 'no-such-bucket'"):
        fetch(configured("s3://no-such-bucket/x", mine=[published(origin, "a", b"a\n")]))
    assert origin.seen == []


def test_the_whole_catalogue_is_what_is_fetched_by_default(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "kit19_ray", "fetch", "--json", f"root={tmp_path}"]
    rows = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert len({r["source"] for r in rows}) == 26  # 19, KoBEST SentiNeg, and six sets that a build is cleaned of
    assert [r["path"] for r in rows if r["by_hand"]] == []
    assert sum(r["source"] == "petitions" for r in rows) == 25
    assert not {"wiki_00", "sae4k_v2.txt", "readme_example.jsonl"} & {r["path"] for r in rows}
    fewer = json.loads(
        subprocess.run(
            [*command, "data.tasks=[nsmc]", "data.gates.decontaminate=false"],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
    )
    kobest = {"kobest_boolq", "kobest_copa", "kobest_hellaswag", "kobest_sentineg", "kobest_wic"}
    assert {r["source"] for r in fewer} == {"nsmc"} | kobest
