from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from kit19_ray.artifacts import manifest
from kit19_ray.config import loading
from kit19_ray.config.schema import Config
from kit19_ray.data import stage
from kit19_ray.data.card import hub_metadata, licence_report, render
from kit19_ray.data.inputs import collect
from kit19_ray.io import node_cache, storage
from kit19_ray.tasks.task import load_tasks

pytestmark = pytest.mark.ray


def text(uri: str, name: str) -> str:
    return storage.read_text(storage.join(uri, name))


def metadata(rendered: str) -> dict[str, Any]:
    _, head, _ = rendered.split("---\n", 2)
    return yaml.safe_load(head)


@pytest.fixture
def built(tiny_build: str) -> dict[str, Any]:
    """The tiny build's manifest, for a test to change."""
    return manifest.require(tiny_build, "data")


def rendered_card(built: dict[str, Any], **changes: Any) -> str:
    tasks = load_tasks(built["tasks"])
    counted = {"seq_len": 1, "packing": {}, "tasks": {}}
    return render.render(built | changes, tasks, counted)


def test_datasets_loads_every_config_with_the_manifests_counts(
    tiny_build: str, built: dict[str, Any], tmp_path: Path
) -> None:
    from datasets import get_dataset_config_names, load_dataset

    folder = str(node_cache.local_dir(tiny_build))
    assert set(get_dataset_config_names(folder)) == {"default", *built["tasks"]}
    everything = load_dataset(folder, cache_dir=str(tmp_path))
    for split in ("train", "validation"):
        assert len(everything[split]) == sum(t["examples"][split] for t in built["tasks"].values()) > 0
    assert everything["train"].column_names[:2] == ["id", "task"]
    one = load_dataset(folder, "nsmc", cache_dir=str(tmp_path))
    assert {k: len(v) for k, v in one.items()} == built["tasks"]["nsmc"]["examples"]
    assert set(one["train"]["task"]) == {"nsmc"}


def test_it_says_what_labels_mean_what_guessing_reaches_and_whose_the_words_are(built: dict[str, Any]) -> None:
    built["tasks"]["nsmc"]["baseline"] = {"rows": 20, "majority": 0.55, "lexical": 0.75}
    built["tasks"]["nsmc"] |= {"balance": "even", "unbalanced": "positive gives 3 of 4 examples"}
    card = rendered_card(built)
    labels = next(
        line for line in card.splitlines() if line.startswith("| nsmc | `positive` | 긍정 | the review praises")
    )
    assert labels.split(" | ")[4] == str(built["tasks"]["nsmc"]["source_classes"]["positive"])
    assert "| nsmc | 20 | 55.0 | 75.0 |" in card
    assert "- Balanced by `even` (`data.balance`), the training rows alone: nsmc." in card
    assert "- nsmc: positive gives 3 of 4 examples." in card
    assert "## Personal data" in card and "not for a corpus: nsmc" in card
    korean = next(line for line in card.splitlines() if line.startswith("공개된 한국어 말뭉치"))
    assert f"과제는 {len(built['tasks'])}개이고" in korean


def test_the_hub_reads_the_metadata(tiny_build: str) -> None:
    from huggingface_hub import DatasetCard

    found = DatasetCard(text(tiny_build, "README.md")).data
    assert (found.language, found.license, found.size_categories) == (["ko"], "other", ["n<1K"])
    assert set(found.task_categories) == {
        "text-classification",
        "question-answering",
        "sentence-similarity",
        "text-generation",
    }
    assert "not-for-all-audiences" not in found.tags


@pytest.mark.parametrize(
    ("rows", "size"),
    [(0, "n<1K"), (999, "n<1K"), (1000, "1K<n<10K"), (100_000, "100K<n<1M"), (10**12, "100M<n<1B")],
)
def test_the_size_is_that_of_the_rows(built: dict[str, Any], rows: int, size: str) -> None:
    for task in built["tasks"].values():
        task["examples"] = {"train": 0, "validation": 0}
    built["tasks"]["nsmc"]["examples"]["train"] = rows
    found = hub_metadata.metadata(built, load_tasks(built["tasks"]))
    assert found["size_categories"] == [size]
    assert [c["config_name"] for c in found["configs"]] == ["default", *(["nsmc"] if rows else [])]


def test_every_category_has_a_hub_category() -> None:
    assert {task.spec.category for task in load_tasks().values()} == set(hub_metadata.TASK_CATEGORIES)


def test_every_link_and_plot_is_there(tiny_build: str) -> None:
    shown = re.findall(r"!\[[^]]+\]\(([^)]+)\)", text(tiny_build, "README.md"))
    assert len(shown) >= 5
    for path in [*shown, "statistics.json", "config.yaml"]:
        assert storage.exists(storage.join(tiny_build, path)), path


def test_tables_have_one_row_a_task_and_their_columns(tiny_build: str, built: dict[str, Any]) -> None:
    rendered = text(tiny_build, "README.md")
    for name, task in built["tasks"].items():
        assert re.search(rf"\| {name} \| {task['raw']:,} \| {task['records']:,} \|", rendered), name
        for path, sha256 in task["sha256"].items():
            assert f"`{path}` | `{sha256}`" in rendered
    for block in re.findall(r"(?:^\|.*\n)+", rendered, re.M):
        assert len({line.count(" | ") for line in block.splitlines()}) == 1, block


def test_equal_builds_have_equal_cards_plots_and_statistics(tiny: Config, tiny_build: str, tmp_path: Path) -> None:
    other = stage.run(tiny.model_copy(update={"root": f"file://{tmp_path}"}))
    names = [f.path for f in storage.list_files(tiny_build)]
    assert [f.path for f in storage.list_files(other)] == names
    for name in names:
        assert storage.read_bytes(storage.join(other, name)) == storage.read_bytes(storage.join(tiny_build, name)), name


def test_config_yaml_builds_the_same_prefix(tiny: Config, tiny_build: str) -> None:
    words = [f"root={tiny.root}", "data.sources=samples"]
    again = loading.load(storage.join(tiny_build, "config.yaml"), words)
    assert stage.uri(again) == tiny_build


def test_the_command_of_the_card_names_what_it_needs(built: dict[str, Any], tmp_path: Path) -> None:
    assert "/config.yaml root=file:///somewhere data.verify=false\n" in rendered_card(
        built
    )  # the samples are not the originals
    for name, task in load_tasks(built["tasks"]).items():
        known = {f.path: f.sha256 for f in task.source.files}
        built["tasks"][name]["sha256"] = {path: known[path] for path in built["tasks"][name]["sha256"] if path in known}
    assert "/config.yaml root=file:///somewhere\n" in rendered_card(built)
    own = (Path(render.DEFINITIONS) / "nsmc.yaml").read_text(encoding="utf-8")
    (tmp_path / "mine.yaml").write_text(own, encoding="utf-8")
    tasks = load_tasks(["mine"], str(tmp_path))
    built["tasks"] = {"mine": built["tasks"]["nsmc"]}
    rendered = render.render(built, tasks, {"seq_len": 1, "packing": {}, "tasks": {}})
    assert "the task files `mine.yaml`" in rendered and "data.tasks_dir=folder/of/its/task/files\n" in rendered


def test_a_skipped_task_is_skipped_again(built: dict[str, Any]) -> None:
    rendered = rendered_card(built, skipped={"apeach": "its files are missing"})
    assert "- apeach: left out. its files are missing" in rendered and "\n  on_missing: skip\n" in rendered


def test_limits_follow_from_the_build(built: dict[str, Any]) -> None:
    for task in built["tasks"].values():
        task["dropped"] = {}
    plain = rendered_card(built)
    for absent in ("Leaky on purpose", "data.licence_policy=", "test** split", "nearly equal", "too long"):
        assert absent not in plain, absent
    built["tasks"]["nsmc"]["splits"] = ["test"]
    built["tasks"]["nsmc"]["dropped"] = {"contaminated_exact": 3, "contaminated_ngram": 1, "too_long": 2}
    rendered = rendered_card(built, ablation="with-test", licence_policy="commercial")
    for text_ in (
        "**Leaky on purpose** (ablation `with-test`)",
        "`data.licence_policy=commercial`",
        "published **test** split: nsmc",
        "4 rows that hold or nearly equal an evaluation item were removed",
        "2 of the rows have prompts and answers too long for 160 tokens",
    ):
        assert text_ in rendered, text_


def test_forbidden_uses_and_insults_are_said(built: dict[str, Any]) -> None:
    built["tasks"] = {"unsmile": built["tasks"]["nsmc"]}
    rendered = rendered_card(built)
    assert "Commercial use forbidden: unsmile. Derivatives forbidden: unsmile." in rendered
    assert "- No derivatives of unsmile" in rendered and "insults and slurs" in rendered
    assert "not-for-all-audiences" in metadata(rendered)["tags"]


def test_a_build_is_cited_by_its_hash(tiny_build: str, built: dict[str, Any]) -> None:
    rendered = text(tiny_build, "README.md")
    assert f"@misc{{kit19-rebuilt-{built['identity'][:12]}," in rendered
    assert f"SHA-256 of the recipe: {built['identity']}" in rendered
    assert "Park (2016). Naver Sentiment Movie Corpus" in rendered


def test_sources_with_one_publication_share_its_citation() -> None:
    tasks = load_tasks(["kobest_boolq", "kobest_copa", "nsmc"])
    lines = licence_report.citations(tasks)
    assert len(lines) == 2 and lines[0].startswith("- KoBEST BoolQ, KoBEST COPA: Jang")


def test_a_bar_in_a_cell_does_not_end_it(built: dict[str, Any]) -> None:
    built["tasks"]["nsmc"]["dropped"] = {"a|b": 1}
    assert "| a\\|b 1 |" in rendered_card(built)


def test_the_inputs_of_the_build_are_the_cards(tiny: Config, built: dict[str, Any]) -> None:
    inputs = collect(tiny)
    rows = licence_report.files(built, inputs.tasks)[1]
    assert {row[0] for row in rows} == set(inputs.tasks)
    assert {row[4] for row in rows} <= {"yes", "**no**", "not known"}
    assert licence_report.is_altered(built, inputs.tasks)
