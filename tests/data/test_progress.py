from __future__ import annotations

from kit19_ray.data.progress import StreamProgress


def test_it_says_rows_reasons_speed_and_time_left(capsys) -> None:  # type: ignore[no-untyped-def]
    now = [0.0]
    progress = StreamProgress(1000, lambda: now[0])
    now[0] = 5
    progress.add(100, 100, {})
    assert capsys.readouterr().err == ""  # not yet
    now[0] = 20
    progress.add(300, 100, {"empty_text": 3, "unknown_label": 1})
    said = capsys.readouterr().err
    assert "400 rows read, 396 kept, 4 dropped (empty_text 3, unknown_label 1); 20 rows/s, 20%, about 80 s left" in said
    progress.end()
    assert "left" not in capsys.readouterr().err


def test_no_files_are_no_division_by_zero() -> None:
    assert "0 rows read" in StreamProgress(0).line()


def test_the_first_rows_tell_no_time() -> None:
    now = [0.0]
    progress = StreamProgress(1000, lambda: now[0])
    now[0] = 5
    progress.add(40, 40, {})
    assert progress.line().endswith("8 rows/s, 4%")
    progress.add(10, 10, {})
    assert progress.line().endswith("10 rows/s, 5%, about 95 s left")
