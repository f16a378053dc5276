"""The metadata block of a data card, in the Hugging Face hub's terms."""

from __future__ import annotations

from collections.abc import Mapping

from kit19_ray.artifacts.data_manifests import DataManifest
from kit19_ray.tasks.task import Task
from kit19_ray.utils.json_types import Json

SPLITS = ("train", "validation")
TASK_CATEGORIES: dict[str, str] = {
    "hate_speech": "text-classification",
    "boolean_qa": "question-answering",
    "natural_language_inference": "text-classification",
    "text_generation": "text-generation",
    "closed_book_qa": "question-answering",
    "semantic_textual_similarity": "sentence-similarity",
    "sentiment_analysis": "text-classification",
    "intent_argument_extraction": "text-generation",
    "math": "question-answering",
    "summarization": "summarization",
}
"""Our categories in the hub's terms."""
_SIZES = ("n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "10M<n<100M", "100M<n<1B")


def metadata(built: DataManifest, tasks: Mapping[str, Task]) -> Json:
    """What the hub shows and searches, and what `datasets.load_dataset` reads: all tasks, or one by its name."""
    total = {split: sum(t["examples"][split] for t in built["tasks"].values()) for split in SPLITS}
    size = len(str(sum(total.values()))) - 3  # 999 has 3 digits and 1,000 has 4
    hate = any(task.spec.category == "hate_speech" for task in tasks.values())
    per_task = [_data_files(name, name, task["examples"]) for name, task in built["tasks"].items()]
    return {
        "pretty_name": "KIT-19, rebuilt",
        "language": ["ko"],
        "license": "other",
        "license_name": "one-per-source",
        "license_details": "each row's column `licence`; the ledger below says what each forbids",
        "multilinguality": ["monolingual"],
        "size_categories": [_SIZES[min(max(size, 0), len(_SIZES) - 1)]],
        "task_categories": sorted(
            {TASK_CATEGORIES.get(task.spec.category, "text-generation") for task in tasks.values()}
        ),
        "tags": ["instruction-tuning", "korean", "kit-19", *(["not-for-all-audiences"] if hate else [])],
        "configs": [_data_files("default", "*", total) | {"default": True}, *(c for c in per_task if c["data_files"])],
    }


def front_matter(built: DataManifest, tasks: Mapping[str, Task]) -> str:
    """The block as the hub's own library writes it, without the lines of dashes round it."""
    from huggingface_hub import DatasetCardData

    return DatasetCardData(**metadata(built, tasks)).to_yaml()


def _data_files(config: str, stem: str, examples: Mapping[str, int]) -> Json:
    files = [{"split": split, "path": f"examples/{split}-{stem}.parquet"} for split in SPLITS if examples[split]]
    return {"config_name": config, "data_files": files}
