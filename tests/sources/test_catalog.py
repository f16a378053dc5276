from pathlib import Path

import pytest

from kit19_ray import storage
from kit19_ray.errors import SourceError
from kit19_ray.sources.catalog import CATALOG, Source, load_catalog
from kit19_ray.sources.files import locate, verify_sha256
from kit19_ray.sources.readers import READERS, read

NINETEEN = {
    "apeach", "unsmile", "hatescore", "kobest_boolq", "kobest_copa", "kobest_hellaswag", "kobest_wic", "kornli",
    "korsts", "kowiki_text", "pawsx_ko", "parakqc", "stylekqc", "question_pair", "nsmc", "sae4k", "petitions",
    "math_korean", "lbox_summarization",
}  # fmt: skip
NSMC = "id\tdocument\tlabel\n1\t좋다\t1\n"


def spec(**changes: object) -> dict[str, object]:
    return {
        "title": "t",
        "homepage": "https://example.org",
        "licence": {"name": "CC0", "commercial": True, "derivatives": True},
        "citation": "c",
        "reader": "delimited",
        "files": [{"path": "a.tsv", "split": "train"}],
    } | changes


def written(folder: Path, files: dict[str, str]) -> str:
    for path, text in files.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    return storage.normalise(folder)


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
    assert [r.line for r in read(source, file)] == [2]


def test_a_wrong_hash_and_a_truncated_file(tmp_path: Path) -> None:
    base = written(tmp_path, {"nsmc/ratings_test.txt": NSMC})
    (file,) = locate("nsmc", load_catalog()["nsmc"], base, ["test"])
    with pytest.raises(SourceError) as caught:
        verify_sha256(file)
    assert "ratings_test.txt: 29 bytes, the published file has 4893335; SHA-256 is " in str(caught.value)
    assert "the published file's is 8ac9f64052f1" in str(caught.value)
    assert len(verify_sha256(file, check=False)) == 64


def test_a_source_described_in_a_task_file() -> None:
    source = Source.model_validate(spec(options={"delimiter": ",", "quoting": "csv"}))
    assert source.splits() == ["train"]
