"""Files are found by name or pattern, missed by name with where to get them, and known by their hashes."""

from pathlib import Path

import pytest

from kit19_ray.errors import SourceError
from kit19_ray.io import storage
from kit19_ray.sources.catalog import load_catalog
from kit19_ray.sources.files import locate, verify_sha256

NSMC = "id\tdocument\tlabel\n1\t좋다\t1\n"


def written(folder: Path, files: dict[str, str]) -> str:
    for path, text in files.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    return storage.normalise(folder)


def test_a_missing_file_is_named_with_where_to_get_it(tmp_path: Path) -> None:
    base = written(tmp_path, {"nsmc/rating_train.txt": NSMC})
    with pytest.raises(SourceError) as caught:
        locate("nsmc", load_catalog()["nsmc"], base, ["train"])
    message = str(caught.value)
    assert "source 'nsmc': its train split is missing ratings_train.txt" in message
    assert "did you mean 'rating_train.txt'" in message
    assert f"put it at {base}/nsmc/ratings_train.txt, from https://" in message
    assert "CC0" in message


def test_one_of_several_optional_files_is_enough(tmp_path: Path) -> None:
    source = load_catalog()["petitions"]
    base = written(tmp_path, {"petitions/README.md": ""})
    with pytest.raises(SourceError, match="missing any of petitions_2017-08") as caught:
        locate("petitions", source, base, ["train"])
    assert caught.value.hint.count("put it at") == 3 and "`kit19 fetch petitions` does so" in caught.value.hint
    written(
        tmp_path,
        {"petitions/petitions_2018-03": "", "petitions/petitions_2017-08": "", "petitions/x/petitions_2018-04": ""},
    )
    found = locate("petitions", source, base, ["train"])
    assert [f.path for f in found] == ["petitions_2017-08", "petitions_2018-03"]
    assert all(f.sha256_expected for f in found)


def test_a_pattern_finds_what_no_other_entry_names(tmp_path: Path) -> None:
    source = load_catalog()["kowiki_text"]
    base = written(tmp_path, {f"kowiki_text/{path}": "" for path in ("wiki_07", "wiki_01", "AA/wiki_02", "wiki")})
    found = locate("kowiki_text", source, base, ["train"])
    assert [f.path for f in found] == ["wiki_01", "wiki_07"]
    assert [f.sha256_expected is None for f in found] == [False, True]


def test_an_unknown_split_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"no split 'tests' \(did you mean 'test'\?\); it has train, test"):
        locate("nsmc", load_catalog()["nsmc"], str(tmp_path), ["tests"])


def test_a_companion_is_found_or_missed(tmp_path: Path) -> None:
    source = load_catalog()["stylekqc"]
    base = written(tmp_path, {"stylekqc/act/train.tsv": "act\tsentence\n"})
    with pytest.raises(SourceError, match=r"topic/train.tsv is missing in .*stylekqc; act/train.tsv is read in step"):
        locate("stylekqc", source, base, ["train"])
    written(tmp_path, {"stylekqc/topic/train.tsv": "topic\tsentence\n"})
    (file,) = locate("stylekqc", source, base, ["train"])
    assert [c.path for c in file.companions] == ["topic/train.tsv"]
    assert file.companions[0].size == len("topic\tsentence\n")


def test_located_files_are_read_where_they_are(tmp_path: Path) -> None:
    base = written(tmp_path, {"nsmc/ratings_train.txt": NSMC})
    source = load_catalog()["nsmc"]
    (file,) = locate("nsmc", source, base, ["train"])
    assert [r.line for r in source.read(file)] == [2]


def test_a_wrong_hash_and_a_truncated_file(tmp_path: Path) -> None:
    base = written(tmp_path, {"nsmc/ratings_test.txt": NSMC})
    (file,) = locate("nsmc", load_catalog()["nsmc"], base, ["test"])
    with pytest.raises(SourceError) as caught:
        verify_sha256(file)
    assert "ratings_test.txt: 29 bytes, the published file has 4893335; SHA-256 is " in str(caught.value)
    assert "the published file's is 8ac9f64052f1" in str(caught.value)
    assert len(verify_sha256(file, check=False)) == 64
