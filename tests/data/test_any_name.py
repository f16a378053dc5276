"""A whole build, a report and a deletion under names as people type them, on disk and on an S3 server.

KIT19_FUZZ_BUILDS is how many names of chance are tried on each beside the known ones: 1 when it is not set.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from kit19_ray.artifacts import manifest
from kit19_ray.artifacts.packed_shards import PackedSplit
from kit19_ray.config import loading
from kit19_ray.data import stage
from kit19_ray.io import storage
from kit19_ray.report import stage as report_stage
from kit19_ray.utils import ray_session
from tests.io.test_uris import NAMES, refused
from tests.report.conftest import Root
from tests.sources.stranger import spec

pytestmark = [pytest.mark.ray, pytest.mark.s3]
EXAMPLES = int(os.environ.get("KIT19_FUZZ_BUILDS", "1"))
# A comment and a mapping of YAML, an escape, a query, Hangul. A pattern and a hidden file are no plain names.
KNOWN = "exp #1: 50%25 ? 운영 a+b&c=d"
SECRET = "hunter2secret"
ROWS = "text\tlabel\n" + "".join(f"돌 {n} 개가 산에 있다\t{n % 2}\n" for n in range(40))
_FILES = NAMES.filter(
    lambda name: not name.startswith(".") and not set(name) & set("*?[\\") and len(name.encode()) < 200
)
_ROOTS = NAMES.filter(lambda name: len(name.encode()) < 200)
_CHANCE = settings(
    max_examples=EXAMPLES,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def _everything(base: str) -> dict[str, bytes]:
    return {info.path: storage.read_bytes(storage.join(base, info.path)) for info in storage.list_files(base)}


def _task(folder: Path, file: str) -> str:
    """A folder with the file of the task `mine`, whose one source is of this name; it has a secret in its URLs."""
    url = f"https://user:{SECRET}@host.example/a?sig={SECRET}"
    own = spec(
        files=[{"path": file, "split": "train", "url": url}],
        homepage=url,
        licence={"name": "mine", "url": url, "commercial": True, "derivatives": True},
        options={"keep": ["text", "label"]},
    )
    template = {"kind": "open", "instruction": "고르세요.", "input": "{{ text }}", "outputs": ["{{ choice }}"]}
    task = {
        "category": "sentiment_analysis", "description": "내 과제", "source": own, "splits": ["train"],
        "fields": ["text", "label"], "answer": "label", "choices": {"0": "나쁨", "1": "좋음"}, "metrics": ["accuracy"],
        "templates": [{"name": name, **template} for name in ("first", "second")],
    }  # fmt: skip
    (folder / "mine.yaml").write_text(json.dumps(task), encoding="utf-8")
    return str(folder)


def _check(base: str, root: str, file: str, tasks: Path) -> None:
    """Builds below `base`/`root` from `base`/sources/mine/`file`; what else is below `base` stays as it is."""
    if refused(base, root, file) or refused("file://", root, file):
        return
    storage.write_text(storage.join(base, "of " + root, "mine", file), ROWS)
    storage.write_text(storage.join(base, root + "2", "neighbour"), "its name begins like the root's")
    before = _everything(base)
    place = storage.join(base, root)
    words = [
        f"root={place}", f"data.sources={storage.join(base, 'of ' + root)}", f"data.tasks_dir={_task(tasks, file)}",
        "data.tasks=[mine]", "data.quota=20", "data.validation=4", "data.validation_fraction=0.3",
        "data.tokenizer.vocab_size=300", "data.seq_len=96", "data.prompt=plain", "data.gates.decontaminate=false",
        "data.gates.near_duplicates=1", "data.gates.duplicates=false",
    ]  # fmt: skip
    config = loading.load(None, words)
    assert config.root == place
    uri = stage.run(config)
    assert uri.startswith(f"{place}/data-") and uri == stage.uri(config)
    built = manifest.require(uri, "data")
    assert built["tasks"]["mine"]["examples"]["train"] == 20 and len(PackedSplit.open(uri, "train")) > 0
    assert manifest.finished(uri, "data") is not None and stage.run(config) == uri
    made = Root(place)
    scored = made.evaluate("evaluate-1", made.train("train-1", uri))
    out, _ = report_stage.write([scored], None, storage.join(place, "report " + file))
    assert "kobest_copa" in storage.read_text(storage.join(out, "report.md"))
    after = _everything(base)
    fresh = {path for path in after if path not in before}
    assert fresh and all(path.startswith(f"{root}/") for path in fresh), "nothing is beside the root"
    assert {path: after[path] for path in before} == before
    assert not [path for path, data in after.items() if SECRET.encode() in data], "no file has the secret"
    storage.delete(uri)
    left = _everything(base)
    assert left == {
        path: data for path, data in after.items() if not path.startswith(f"{root}/{uri.rsplit('/', 1)[1]}/")
    }
    storage.delete(place)
    assert _everything(base) == before


def _run(base: str, tasks: Path) -> None:
    _check(base, KNOWN, "행 " + KNOWN.replace("?", "") + ".tsv", tasks)
    number = iter(range(1 << 20))

    @_CHANCE
    @given(st.tuples(_ROOTS, _FILES))
    def chance(names: tuple[str, str]) -> None:
        _check(storage.join(base, str(next(number))), *names, tasks)

    chance()


def test_any_name_through_a_whole_build(s3_root: str, tmp_path: Path) -> None:
    (tmp_path / "tasks").mkdir()
    with ray_session.connected(cpus=2):  # the workers need the server's address
        _run(f"file://{tmp_path}/disk", tmp_path / "tasks")
        _run(s3_root, tmp_path / "tasks")
