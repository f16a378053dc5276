import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit19_ray.sources.readers import lines
from kit19_ray.sources.readers.lines import physical_lines


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", []),
        (b"a", [b"a"]),
        (b"a\n", [b"a"]),
        (b"a\r\nb", [b"a", b"b"]),
        (b"a\r\r\nb\r", [b"a\r", b"b"]),
        (b"\xef\xbb\xbfa\n\xef\xbb\xbfb", [b"a", b"\xef\xbb\xbfb"]),
        (b"\n\n", [b"", b""]),
        (b"\xef\xbb\xbf", []),
        (b"\xef\xbb\xbf\n", [b""]),
        (b"\r", [b""]),
        ("가\u001c나\u0085다\u2028라".encode(), ["가\u001c나\u0085다\u2028라".encode()]),
    ],
)
def test_split(data: bytes, expected: list[bytes]) -> None:
    assert list(physical_lines(io.BytesIO(data))) == expected


@given(st.binary(max_size=200), st.integers(1, 7))
def test_chunks_do_not_matter(data: bytes, chunk: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        whole = list(physical_lines(io.BytesIO(data)))
        patch.setattr(lines, "CHUNK", chunk)
        assert list(physical_lines(io.BytesIO(data))) == whole
    bare = data.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    assert len(whole) == len(bare) - (bare[-1] == b"")


@pytest.mark.parametrize("chunk", [3, 1 << 20])
def test_a_line_without_end_is_cut_and_the_next_one_is_read(monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr(lines, "CHUNK", chunk)
    data = b"ok\n" + b"x" * 50 + b"\nafter\n" + b"y" * 50
    assert list(physical_lines(io.BytesIO(data), max_line=10)) == [b"ok", None, b"after", None]
