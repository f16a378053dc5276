"""What lies before a reader: packed files, other encodings, old line ends, and what is no text at all."""

from __future__ import annotations

import gzip
import io
import zlib
from typing import BinaryIO

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit19_ray.errors import SourceError
from kit19_ray.sources.readers import byte_stream
from kit19_ray.sources.readers.byte_stream import likely_encoding, utf8

TEXT = "제목\t표\n붉은 돌 하나\t1\n"


def _read(data: bytes, encoding: str | None = None, size: int | None = None) -> bytes:
    return utf8(io.BytesIO(data), "rows.tsv", len(data) if size is None else size, encoding).read()


def _gzip(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)  # a parameter's id must not tell the time: workers compare their lists of tests


def _zstd(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as out:
        out.write(data)
    return bytes(sink.getvalue())


@pytest.mark.parametrize(
    ("data", "encoding"),
    [
        (TEXT.encode(), None),
        (_gzip(TEXT.encode()), None),
        (_gzip(TEXT[:5].encode()) + _gzip(TEXT[5:].encode()), None),
        (_zstd(TEXT.encode()), None),
        (TEXT.encode("utf-16"), None),
        (TEXT.encode("utf-16"), "cp949"),  # the mark says more than the config
        (b"\xfe\xff" + TEXT.encode("utf-16-be"), None),
        (TEXT.encode("utf-32"), None),
        (TEXT.encode("cp949"), "cp949"),
        (TEXT.encode("euc_kr"), "euc_kr"),
        (TEXT.encode("johab"), "johab"),
        (_gzip(TEXT.encode("cp949")), "cp949"),
        (TEXT.replace("\n", "\r").encode(), None),
    ],
)
def test_every_form_of_a_text_is_the_same_text(data: bytes, encoding: str | None) -> None:
    assert _read(data, encoding).decode() == TEXT


@given(st.text(st.characters(codec="cp949"), max_size=200), st.integers(1, 9))
def test_chunks_do_not_cut_letters(text: str, chunk: int) -> None:
    class Slow(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            return super().read(min(chunk, size) if size and size > 0 else size)

    text = "글\n" + text
    assert utf8(Slow(text.encode("cp949")), "x", 0, "cp949").read().decode() == text


def test_a_byte_that_is_no_text_costs_its_own_row_only() -> None:
    lines = _read("가나\n".encode("cp949") + b"\xff\xff\n" + "다라\n".encode("cp949"), "cp949").split(b"\n")
    assert lines[0].decode() == "가나" and lines[2].decode() == "다라"
    with pytest.raises(UnicodeDecodeError):
        lines[1].decode()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"PK\x03\x04rest", "a zip archive"),
        (b"PAR1rest", "a Parquet file"),
        (b"\xfd7zXZ\x00rest", "compressed with xz"),
        (b"\x00\x05\x16\x07\x00", "AppleDouble"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer.*git lfs pull"),
        (_gzip(b"PK\x03\x04rest"), "a zip archive"),
        (_gzip(TEXT.encode() * 500)[:60], "cannot be unpacked"),
        (b"\x1f\x8bnot gzip at all", "cannot be unpacked"),
        (b"\x28\xb5\x2f\xfdnot zstd at all", "cannot be unpacked"),
    ],
)
def test_what_is_no_text_is_named(data: bytes, said: str) -> None:
    with pytest.raises(SourceError, match=f"rows.tsv: .*{said}"):
        _read(data)


@pytest.mark.parametrize("pack", [_gzip, _zstd])
def test_a_bomb_is_not_read_to_its_end(pack: object, monkeypatch: pytest.MonkeyPatch) -> None:
    assert callable(pack)
    monkeypatch.setattr(byte_stream, "_FREE", 1 << 20)
    packed = pack(bytes(64 << 20))
    stream: BinaryIO = utf8(io.BytesIO(packed), "rows.tsv", len(packed))
    with pytest.raises(SourceError, match="unpacks to more than 250 times its size"):
        list(iter(lambda: len(stream.read(1 << 20)), 0))


def test_a_korean_encoding_is_found_out() -> None:
    assert likely_encoding("붉은 돌 하나".encode("cp949")) == "cp949"
    assert likely_encoding("crème brûlée".encode("latin-1")) is None
    assert likely_encoding(zlib.compress(b"x" * 50)) is None


def test_half_a_unit_at_the_end_of_utf_16_costs_its_row() -> None:
    cut = "가\n나".encode("utf-16") + b"\t"
    lines = utf8(io.BytesIO(cut), "a.txt", len(cut)).read().split(b"\n")
    assert lines[0].decode() == "가"
    with pytest.raises(UnicodeDecodeError):
        lines[1].decode()
