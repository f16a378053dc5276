from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kit19_ray.io import storage
from kit19_ray.report import stage

PNG = b"\x89PNG\r\n\x1a\n"


def files(uri: str) -> dict[str, bytes]:
    return {info.path: storage.read_bytes(storage.join(uri, info.path)) for info in storage.list_files(uri)}


def test_the_folder_holds_page_charts_and_record_and_the_same_bytes_again(root: Any, tmp_path: Path) -> None:
    data = root.data("data-1")
    root.evaluate("evaluate-1", root.train("train-aaaa", data), nsmc={"majority": 0.51, "lexical": 0.625})
    root.train("train-bbbb", data)
    uri, found = stage.write([], root.uri, str(tmp_path / "report"))
    written = files(uri)
    assert set(written) == {"report.md", "report.html", "report.json", "loss.png", "scores.png"}
    assert all(written[name].startswith(PNG) for name in ("loss.png", "scores.png"))
    text = written["report.md"].decode()
    assert "![loss](loss.png)" in text and "![scores](scores.png)" in text
    assert "<th>majority</th>\n<th>lexical</th>" in (sent := written["report.html"].decode())
    assert "<td>51.00</td>\n<td>62.50</td>" in sent
    assert json.loads(written["report.json"]) == json.loads(stage.record(found)) == stage.make([], root.uri)
    again, _ = stage.write([], root.uri, str(tmp_path / "again"))
    assert files(again) == written


def test_without_metrics_or_scores_there_is_no_chart(root: Any, tmp_path: Path) -> None:
    trained = root.train("train-aaaa", root.data("data-1"))
    storage.delete(storage.join(trained, "metrics.jsonl"))
    uri, _ = stage.write(["train-aaaa"], root.uri, str(tmp_path / "report"))
    assert set(files(uri)) == {"report.md", "report.html", "report.json"}


@pytest.mark.s3
def test_on_s3(s3_root: str, make_root: Any) -> None:
    root = make_root(s3_root)
    root.evaluate("evaluate-1", root.train("train-aaaa", root.data("data-1")))
    uri, _ = stage.write([s3_root], None, "s3://kit19/report")
    assert set(files(uri)) == {"report.md", "report.html", "report.json", "loss.png", "scores.png"}
