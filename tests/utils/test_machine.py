"""Limits of a container, of both versions of cgroups, and of the CPUs a process may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kit19_ray.utils import machine


@pytest.mark.parametrize(
    ("files", "most", "free"),
    [
        ({"memory.max": "1000000", "memory.current": "400000"}, 1_000_000, 600_000),
        ({"memory/memory.limit_in_bytes": "1000000", "memory/memory.usage_in_bytes": "1000001"}, 1_000_000, 0),
        ({"memory.max": "max", "memory.current": "400000"}, None, None),
        ({"memory/memory.limit_in_bytes": "9223372036854771712", "memory/memory.usage_in_bytes": "1"}, None, None),
        ({}, None, None),
    ],
)
def test_a_containers_limit_counts(
    files: dict[str, str], most: int | None, free: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    monkeypatch.setattr(machine, "_CGROUP", tmp_path)
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert machine.memory() == (whole if most is None else most)
    if free is None:
        assert 0 < machine.free_memory() <= whole
    else:
        assert machine.free_memory() == free


def test_cpus_are_those_this_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3})
    assert machine.cpus() == 1
