"""/admin/models against the real server: LoRA adapters, load, swap and unload while requests come."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from kit19_ray.config.schema import AdapterConfig, Config, ServeConfig
from kit19_ray.lm import pretrained
from kit19_ray.lm.generator import Generator
from kit19_ray.serve import stage
from tests.serve.conftest import CONTEXT

pytestmark = [
    pytest.mark.ray,
    pytest.mark.filterwarnings(
        "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"
    ),  # peft 0.21 asks for it
]

ADMIN = "the-admins-own-long-key"
PROMPTS = ["이 영화는 정말", "두 문장의 뜻이 같은지", "대한민국의 수도는", "배우의"]


def make_model(folder: Path, tokenizer: Any, seed: int) -> Path:
    model = pretrained.build_gpt_neox(
        hidden_size=32,
        layers=2,
        heads=4,
        intermediate_size=None,
        vocab_size=len(tokenizer),
        seq_len=CONTEXT,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        seed=seed,
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def make_adapter(folder: Path, model: Path, seed: int) -> Path:
    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)
    base = pretrained.load_causal_lm(str(model))
    config = LoraConfig(r=4, lora_alpha=64, init_lora_weights=False, target_modules=["query_key_value"])
    get_peft_model(base, config).save_pretrained(folder)
    return folder


def references(model: Path, adapter: Path | None = None) -> list[str]:
    generator = Generator.load(str(model))
    if adapter is not None:
        from peft import PeftModel

        merged = PeftModel.from_pretrained(generator.model, str(adapter)).merge_and_unload()
        generator = Generator(merged, generator.tokenizer)
    return [generator.generate([generator.encode(p)], 10)[0].text for p in PROMPTS]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def other_model(folder: Path, tiny_tokenizer: Any) -> Path:
    return make_model(folder / "other", tiny_tokenizer, 11)


@pytest.fixture(scope="module")
def adapters(folder: Path, tiny_model: Path) -> list[Path]:
    return [make_adapter(folder / f"lora-{seed}", tiny_model, seed) for seed in (1, 2)]


@pytest.fixture(scope="module")
def server(
    ray_cluster: None, tiny_model: Path, adapters: list[Path], folder: Path, free_port: Callable[[], int]
) -> Iterator[stage.Server]:
    (folder / "admin").write_text(f"root {ADMIN}\n")
    section = ServeConfig(
        port=free_port(),
        cpus_per_replica=0.25,
        adapters={"tuned": AdapterConfig(path=str(adapters[0]))},
        admin_keys_file=str(folder / "admin"),
    )
    with stage.start(Config(root="file:///unused", serve=section), str(tiny_model)) as started:
        yield started


@pytest.fixture
def http(server: stage.Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=120, trust_env=False) as opened:
        yield opened


@pytest.fixture
def admin(server: stage.Server) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {ADMIN}"}
    with httpx.Client(base_url=server.url, timeout=400, trust_env=False, headers=headers) as opened:
        yield opened


def complete(http: httpx.Client, model: str, prompt: str) -> str:
    body = {"model": model, "prompt": prompt, "max_tokens": 10, "temperature": 0}
    response = http.post("/v1/completions", json=body)
    assert response.status_code == 200, response.text
    return str(response.json()["choices"][0]["text"])


def stream(http: httpx.Client, model: str, prompt: str) -> str:
    import json

    body = {"model": model, "prompt": prompt, "max_tokens": 10, "temperature": 0, "stream": True}
    with http.stream("POST", "/v1/completions", json=body) as response:
        assert response.status_code == 200
        lines = [line.removeprefix("data: ") for line in response.iter_lines() if line.startswith("data: ")]
    assert lines[-1] == "[DONE]", lines[-1]
    return "".join(json.loads(line)["choices"][0]["text"] for line in lines[:-1])


def during(http: httpx.Client, model: str, change: Callable[[], httpx.Response]) -> tuple[list[tuple[str, str]], Any]:
    """(prompt, answer) of requests that never cease while `change` is made, and its response."""
    over = threading.Event()

    def ask(number: int) -> list[tuple[str, str]]:
        found = []
        while not over.is_set():
            prompt = PROMPTS[(number + len(found)) % len(PROMPTS)]
            found.append((prompt, (stream if number % 2 else complete)(http, model, prompt)))
        return found

    with ThreadPoolExecutor(4) as pool:
        asking = [pool.submit(ask, number) for number in range(4)]
        try:
            response = change()
            over.wait(1.0)
        finally:
            over.set()
        return [pair for one in asking for pair in one.result()], response


def test_adapters_answer_by_name_beside_their_base(
    http: httpx.Client, admin: httpx.Client, tiny_model: Path, adapters: list[Path]
) -> None:
    plain, tuned, second = references(tiny_model), *(references(tiny_model, adapter) for adapter in adapters)
    assert len({tuple(plain), tuple(tuned), tuple(second)}) == 3
    entries = {entry["id"]: entry for entry in http.get("/v1/models").json()["data"]}
    assert entries["tuned"]["parent"] == "kit19" and entries["tuned"]["root"] == str(adapters[0])
    loaded = admin.post("/admin/models", json={"name": "t2", "root": str(adapters[1]), "base": "kit19"})
    assert loaded.status_code == 201, loaded.text
    asked = [(model, n) for n in range(len(PROMPTS)) for model in ("kit19", "tuned", "t2")]
    with ThreadPoolExecutor(len(asked)) as pool:  # in one another's company
        answers = list(pool.map(lambda one: complete(http, one[0], PROMPTS[one[1]]), asked))
    expected = {"kit19": plain, "tuned": tuned, "t2": second}
    assert answers == [expected[model][n] for model, n in asked]
    assert admin.delete("/admin/models/t2").json()["state"] == "unloaded"
    assert http.post("/v1/completions", json={"model": "t2", "prompt": "가"}).status_code == 404


def test_an_adapter_is_swapped_without_a_failed_request(
    http: httpx.Client, admin: httpx.Client, tiny_model: Path, adapters: list[Path]
) -> None:
    old, new = references(tiny_model, adapters[0]), references(tiny_model, adapters[1])
    told, response = during(http, "tuned", lambda: admin.put("/admin/models/tuned", json={"root": str(adapters[1])}))
    assert response.status_code == 200, response.text
    assert all(answer in (old[PROMPTS.index(p)], new[PROMPTS.index(p)]) for p, answer in told)
    assert [complete(http, "tuned", p) for p in PROMPTS] == new


def test_a_model_is_swapped_without_a_failed_request(
    http: httpx.Client, admin: httpx.Client, tiny_model: Path, other_model: Path, adapters: list[Path]
) -> None:
    """The old one serves until the new one answers, and each answer is whole one model's."""
    old, new = references(tiny_model), references(other_model)
    assert not set(old) & set(new)
    told, response = during(http, "kit19", lambda: admin.put("/admin/models/kit19", json={"root": str(other_model)}))
    assert response.status_code == 200, response.text
    assert response.json()["root"] == str(other_model)
    assert all(answer in (old[PROMPTS.index(p)], new[PROMPTS.index(p)]) for p, answer in told)
    assert {answer for _, answer in told} & set(old) and [complete(http, "kit19", p) for p in PROMPTS] == new
    listed = {entry["id"]: entry for entry in admin.get("/admin/models").json()["data"]}
    assert (listed["kit19"]["state"], listed["kit19"]["generation"], listed["tuned"]["state"]) == ("ready", 1, "ready")
    assert complete(http, "tuned", PROMPTS[0]) == references(other_model, adapters[1])[0]


def test_what_cannot_be_loaded_is_told_and_the_old_model_stays(
    http: httpx.Client, admin: httpx.Client, other_model: Path, folder: Path, tiny_tokenizer: Any
) -> None:
    before = complete(http, "kit19", PROMPTS[0])
    nothing = admin.put("/admin/models/kit19", json={"root": "/no/such/model"})
    assert nothing.status_code == 400 and nothing.json()["error"]["param"] == "root"
    damaged = shutil.copytree(other_model, folder / "damaged")
    (damaged / "config.json").write_text('{"model_type": "gpt_neox", "hidden_size": 33}')
    refused = admin.put("/admin/models/kit19", json={"root": str(damaged)})
    assert refused.status_code == 422, refused.text
    assert refused.json()["error"]["code"] == "model_not_loaded"
    tiny = make_model(folder / "wide", tiny_tokenizer, 5)
    assert admin.post("/admin/models", json={"name": "a b", "root": str(tiny)}).status_code == 400
    assert admin.post("/admin/models", json={"name": "x", "root": str(tiny), "base": "kit19"}).status_code == 400
    assert complete(http, "kit19", PROMPTS[0]) == before
    assert http.get("/readyz").status_code == 200


def test_a_model_is_added_and_taken_away(http: httpx.Client, admin: httpx.Client, tiny_model: Path) -> None:
    assert admin.post("/admin/models", json={"name": "org/first", "root": str(tiny_model)}).status_code == 201
    assert complete(http, "org/first", PROMPTS[0]) == references(tiny_model)[0]
    told, gone = during(http, "kit19", lambda: admin.delete("/admin/models/org/first"))
    assert gone.status_code == 200 and told
    assert admin.get("/admin/models", headers={"Authorization": "Bearer somebody-elses-key"}).status_code == 401


def test_a_changed_config_changes_models_without_a_failed_request(
    server: stage.Server, http: httpx.Client, tiny_model: Path, other_model: Path
) -> None:
    """As `serve deploy` or KubeRay do with a changed config file: the application is built and deployed again."""
    from ray import serve

    current, wanted_ = references(other_model), references(tiny_model)
    section = ServeConfig(cpus_per_replica=0.25, models={"second": str(other_model)}, auth="none", drain_seconds=5)

    def deploy() -> httpx.Response:
        application = stage.application(section, str(tiny_model))
        serve.run_many([serve.api.RunTarget(application, stage.APP, "/", {"log_level": "WARNING"})])
        for _ in range(300):
            if len(http.get("/v1/models").json()["data"]) == 2 and complete(http, "kit19", PROMPTS[0]) == wanted_[0]:
                break
        return http.get("/v1/models")

    told, response = during(http, "kit19", deploy)
    assert [entry["id"] for entry in response.json()["data"]] == ["kit19", "second"]
    assert all(answer in (current[PROMPTS.index(p)], wanted_[PROMPTS.index(p)]) for p, answer in told)
    assert complete(http, "second", PROMPTS[1]) == current[1]
