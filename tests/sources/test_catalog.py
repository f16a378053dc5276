from pathlib import Path

import pytest

from kit19_ray.errors import SourceError
from kit19_ray.sources.catalog import CATALOG, Source, load_catalog
from kit19_ray.sources.readers.registry import READERS
from tests.sources.stranger import spec

NINETEEN = {
    "apeach", "unsmile", "hatescore", "kobest_boolq", "kobest_copa", "kobest_hellaswag", "kobest_wic", "kornli",
    "korsts", "kowiki_text", "pawsx_ko", "parakqc", "stylekqc", "question_pair", "nsmc", "sae4k", "petitions",
    "math_korean", "lbox_summarization",
}  # fmt: skip


def test_all_nineteen_sources_and_sentineg() -> None:
    catalog = load_catalog()
    assert set(catalog) == NINETEEN | {"kobest_sentineg"}
    assert {s.reader for s in catalog.values()} <= set(READERS)


def test_licences_that_forbid_something() -> None:
    catalog = load_catalog()
    assert {n for n, s in catalog.items() if not s.licence.commercial} == {
        "unsmile", "hatescore", "math_korean", "lbox_summarization"
    }  # fmt: skip
    assert {n for n, s in catalog.items() if not s.licence.derivatives} == {"unsmile"}


def test_only_apeach_trains_on_a_file_named_test() -> None:
    named_test = {
        (n, f.path)
        for n, s in load_catalog().items()
        for f in s.files
        if f.split == "train" and ("test" in f.path.lower() or "dev" in f.path or "valid" in f.path)
    }
    assert named_test == {("apeach", "test.csv")}


@pytest.mark.real_data
def test_the_catalogue_agrees_with_the_manifest(shared_sources: Path) -> None:
    lines = (shared_sources / "MANIFEST.tsv").read_text(encoding="utf-8").splitlines()[1:]
    manifest = {path: (int(size), sha, rows) for path, size, sha, rows, _ in (line.split("\t") for line in lines)}
    checked = 0
    for name, source in load_catalog().items():
        for file in source.files:
            if file.sha256 and f"{name}/{file.path}" in manifest:
                assert manifest[f"{name}/{file.path}"] == (file.bytes, file.sha256, str(file.rows))
                checked += 1
            if file.companion:
                size, sha, _ = manifest[f"{name}/{file.companion}"]
                assert (file.companion_bytes, file.companion_sha256) == (size, sha)
    assert checked == 44


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"reader": "delimted"}, "did you mean 'delimited'"),
        ({"options": {"delimeter": ","}}, "did you mean 'delimiter'"),
        ({"reader": "parakqc", "options": {"delimiter": ","}}, "reader 'parakqc'"),
        ({"files": [{"path": "../a", "split": "train"}]}, "below the source's folder"),
        ({"files": [{"path": "a", "split": "train"}] * 2}, "listed twice"),
        ({"files": [{"path": "a", "split": "trian"}]}, "'train', 'validation' or 'test'"),
        ({"files": []}, "files"),
        ({"licence": {"name": "CC0", "commercial": True}}, "derivatives"),
    ],
)
def test_a_wrong_source_is_refused_by_file_and_key(tmp_path: Path, changes: dict[str, object], said: str) -> None:
    import yaml

    path = tmp_path / "sources.yaml"
    path.write_text(yaml.safe_dump({"mine": spec(**changes)}), encoding="utf-8")
    with pytest.raises(SourceError) as caught:
        load_catalog(path)
    assert "sources.yaml: mine" in str(caught.value)
    assert said in str(caught.value)


def test_a_source_that_stands_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "sources.yaml"
    path.write_text(CATALOG.read_text(encoding="utf-8") + "\nnsmc:\n  title: again\n", encoding="utf-8")
    with pytest.raises(SourceError, match="key 'nsmc' stands twice"):
        load_catalog(path)


def test_where_every_file_is_published() -> None:
    for name, source in load_catalog().items():
        for file in source.files:
            if file.alternative:
                continue
            assert file.url or file.archive, (name, file.path)
            origin = file.archive or file
            assert name == "lbox_summarization" or (origin.bytes and origin.sha256), (name, file.path)
            for url in (origin.url, *([file.companion_url] if file.companion else [])):
                assert url and url.startswith("https://")
                assert "/master/" not in url and "/main/" not in url, "a branch moves; a hash needs a commit"


def test_a_pattern_matches_what_no_other_file_names() -> None:
    files = [{"path": "part_*", "split": "train"}, {"path": "part_x", "split": "test"}]
    source = Source.model_validate(spec(files=files))
    there = {"part_x": 1, "part_b": 1, "part_a": 1, "sub/part_c": 1, "other": 1}
    assert source.match(source.files[0], there) == ["part_a", "part_b"]
    assert source.match(source.files[1], there) == ["part_x"]
    assert source.match(source.files[1], {"part_a": 1}) == []


def test_a_source_described_in_a_task_file() -> None:
    source = Source.model_validate(spec(options={"delimiter": ",", "quoting": "csv"}))
    assert source.splits() == ["train"]
