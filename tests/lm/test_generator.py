"""The batched model against plain Hugging Face calls, one text at a time."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from kit19_ray.data.tokenizer import train_bpe
from kit19_ray.lm import pretrained
from kit19_ray.lm.generator import Generator
from kit19_ray.lm.loaded_model import context_length

# float32 sums over other shapes differ in the last bits: about 1e-6 a token here, with logits of about 10.
TOLERANCE = 1e-3
CONTEXT = 48


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny matrices on many threads cost more than they save, above all on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    words = ["영화", "배우", "음악", "이야기", "정말", "조금", "다시", "재미있다", "지루하다", "훌륭하다"]
    rng = random.Random(5)
    return train_bpe([" ".join(rng.choices(words, k=9)) for _ in range(200)], 420, 512)


@pytest.fixture(scope="module")
def model(tokenizer: Any) -> Any:
    made = pretrained.build_gpt_neox(
        hidden_size=32,
        layers=2,
        heads=4,
        intermediate_size=None,
        vocab_size=len(tokenizer),
        seq_len=CONTEXT,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        seed=3,
    ).eval()
    with torch.no_grad():
        for weight in made.parameters():
            weight.mul_(4)  # fresh weights are so small that every token is about as likely
    return made


@pytest.fixture
def generator(model: Any, tokenizer: Any) -> Generator:
    return Generator(model, tokenizer)


def texts(count: int, low: int, high: int, seed: int = 0) -> list[list[int]]:
    rng = random.Random(seed)
    return [[rng.randrange(2, 250) for _ in range(rng.randint(low, high))] for _ in range(count)]


def requests() -> list[tuple[list[int], list[int]]]:
    """Contexts with one to five continuations of one to six tokens, common prefixes and whole repeats among them."""
    rng = random.Random(1)
    out: list[tuple[list[int], list[int]]] = []
    for context in texts(24, 1, 40, seed=2):
        first = texts(1, 1, 4, seed=rng.randrange(1000))[0]
        for _ in range(rng.randint(1, 5)):
            out.append((context, rng.choice([first, []]) + texts(1, 1, 3, seed=rng.randrange(1000))[0]))
        out.append(out[-1])
    rng.shuffle(out)
    return out


@torch.no_grad()
def alone(model: Any, context: Sequence[int], continuation: Sequence[int]) -> tuple[float, bool]:
    """The definition, as lm-evaluation-harness has it."""
    whole = [*context, *continuation][-(CONTEXT + 1) :]
    logprobs = model(torch.tensor([whole[:-1]])).logits[0].log_softmax(-1)[-len(continuation) :]
    wanted = torch.tensor(continuation)
    return float(logprobs.gather(-1, wanted[:, None]).sum()), bool((logprobs.argmax(-1) == wanted).all())


@pytest.mark.parametrize("batch_tokens", [1, 64, 100_000])
def test_loglikelihoods_are_the_single_ones(model: Any, tokenizer: Any, batch_tokens: int) -> None:
    asked = requests()
    found = Generator(model, tokenizer, batch_tokens).loglikelihoods(asked)
    for request, (value, greedy) in zip(asked, found, strict=True):
        expected, expected_greedy = alone(model, *request)
        assert value == pytest.approx(expected, abs=TOLERANCE)
        assert greedy == expected_greedy


def test_the_head_runs_where_it_is_asked_and_nowhere_else(generator: Generator, model: Any) -> None:
    sizes: list[torch.Size] = []
    hook = model.get_output_embeddings().register_forward_hook(lambda head, given, made: sizes.append(made.shape))
    asked = [([5, 6, 7], [8, 9, 10]), ([5, 6, 7], [8, 11]), ([5, 6], [7])]
    assert generator.supports_prefix_sharing
    sizes.clear()
    generator.loglikelihoods(asked)
    hook.remove()
    # Asked at: 7 -> 8, 8 -> 9, 8 -> 11 (the same place), 9 -> 10, and 6 -> 7 of the other context.
    assert sum(rows * places for rows, places, _ in sizes) == 4


def test_a_head_that_is_no_module_of_the_model(
    generator: Generator, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = generator.loglikelihoods(requests())
    monkeypatch.setattr(model, "get_output_embeddings", lambda: None)
    for (value, greedy), (wanted, expected_greedy) in zip(generator.loglikelihoods(requests()), expected, strict=True):
        assert value == pytest.approx(wanted, abs=TOLERANCE) and greedy == expected_greedy


def test_contexts_are_shared_when_the_model_can(generator: Generator) -> None:
    assert generator.supports_prefix_sharing


def test_sliding_window_models_do_not_share(tokenizer: Any) -> None:
    from transformers import MistralConfig, MistralForCausalLM

    config = MistralConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        sliding_window=8,
        max_position_embeddings=CONTEXT,
    )
    torch.manual_seed(0)
    windowed = MistralForCausalLM(config).eval()
    generator = Generator(windowed, tokenizer)
    assert not generator.supports_prefix_sharing
    asked = requests()[:12]
    for request, (value, _) in zip(asked, generator.loglikelihoods(asked), strict=True):
        assert value == pytest.approx(alone(windowed, *request)[0], abs=TOLERANCE)


def test_greedy_is_reported(model: Any, generator: Generator) -> None:
    context = [5, 6, 7]
    best: list[int] = []
    for _ in range(3):
        with torch.no_grad():
            best.append(int(model(torch.tensor([context + best])).logits[0, -1].argmax()))
    other = [*best[:-1], (best[-1] + 1) % 250]
    assert [greedy for _, greedy in generator.loglikelihoods([(context, best), (context, other)])] == [True, False]


@pytest.mark.parametrize(("context", "continuation"), [([], [1]), ([1], []), ([1], [2] * (CONTEXT + 1))])
def test_impossible_requests(generator: Generator, context: list[int], continuation: list[int]) -> None:
    with pytest.raises(ValueError, match="continuation"):
        generator.loglikelihoods([(context, continuation)])


def test_score_is_the_whole_text(model: Any, tokenizer: Any) -> None:
    asked = [*texts(9, 1, CONTEXT, seed=4), []]
    found = Generator(model, tokenizer, 100).score(asked, top_logprobs=3)
    assert found[-1].logprobs == []
    for text, scored in zip(asked[:-1], found, strict=False):
        assert len(scored.logprobs) == len(scored.top_logprobs) == len(text)
        assert scored.logprobs[0] is None and scored.top_logprobs[0] is None
        with torch.no_grad():
            expected = model(torch.tensor([text])).logits[0].log_softmax(-1)
        for place in range(1, len(text)):
            assert scored.logprobs[place] == pytest.approx(float(expected[place - 1, text[place]]), abs=TOLERANCE)
            top = scored.top_logprobs[place]
            assert top is not None
            assert list(top) == expected[place - 1].topk(3).indices.tolist()


def test_score_refuses_what_the_model_cannot_read(generator: Generator) -> None:
    with pytest.raises(ValueError, match=f"at most {CONTEXT}"):
        generator.score([[1] * (CONTEXT + 1)])


@pytest.mark.parametrize("batch_tokens", [1, 90, 100_000])
def test_generate_is_hugging_face_greedy(model: Any, tokenizer: Any, batch_tokens: int) -> None:
    prompts = texts(9, 1, 30, seed=6)
    found = Generator(model, tokenizer, batch_tokens).generate(prompts, max_tokens=12, top_logprobs=2)
    for prompt, completion in zip(prompts, found, strict=True):
        ids = torch.tensor([prompt])
        whole = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False)
        expected = whole[0, len(prompt) :].tolist()
        ended = expected[-1] == tokenizer.eos_token_id
        assert completion.token_ids == (expected[:-1] if ended else expected)
        assert completion.finish_reason == ("stop" if ended else "length")
        assert completion.text == tokenizer.decode(completion.token_ids)
        with torch.no_grad():
            logprobs = model(ids if not ended else whole[:, :-1]).logits.log_softmax(-1)
        assert completion.logprobs[0] == pytest.approx(float(logprobs[0, len(prompt) - 1].max()), abs=TOLERANCE)
        assert [max(t, key=t.__getitem__) for t in completion.top_logprobs] == completion.token_ids


def test_end_of_text_ends(model: Any, tokenizer: Any) -> None:
    prompts = texts(6, 3, 20, seed=8)
    generator = Generator(model, tokenizer)
    free = generator.generate(prompts, max_tokens=10)
    ending = free[0].token_ids[4]  # what one of them says at some time now ends texts
    generator.eos_ids = frozenset({ending})
    for before, after in zip(free, generator.generate(prompts, max_tokens=10), strict=True):
        ends = ending in before.token_ids
        cut = before.token_ids[: before.token_ids.index(ending)] if ends else before.token_ids
        assert after.token_ids == cut
        assert after.finish_reason == ("stop" if ends else "length")
    assert any(ending in c.token_ids for c in free)


def test_limits_are_each_prompts_own(generator: Generator) -> None:
    prompts = texts(5, 3, 20, seed=9)
    whole = generator.generate(prompts, max_tokens=8)
    for limit, long, short in zip(range(5), whole, generator.generate(prompts, max_tokens=range(5)), strict=True):
        assert short.token_ids == long.token_ids[:limit]


def test_stop_sequences_are_cut_off(generator: Generator) -> None:
    prompts = texts(8, 3, 20, seed=10)
    free = generator.generate(prompts, max_tokens=16)
    text = free[3].text
    stop = text[len(text) // 2 : len(text) // 2 + 2]
    assert len(stop) == 2
    for before, after in zip(free, generator.generate(prompts, max_tokens=16, stop=["없는 말", stop]), strict=True):
        assert after.text == before.text.split(stop)[0]
        assert after.finish_reason == ("stop" if stop in before.text else before.finish_reason)
        assert after.token_ids == before.token_ids[: len(after.token_ids)]


def test_long_prompts_lose_their_beginning(generator: Generator) -> None:
    prompt = texts(1, CONTEXT + 20, CONTEXT + 20)[0]
    assert (
        generator.generate([prompt], 8)[0].token_ids == generator.generate([prompt[-(CONTEXT - 8) :]], 8)[0].token_ids
    )
    with pytest.raises(ValueError, match=f"context is {CONTEXT}"):
        generator.generate([prompt], CONTEXT)
    with pytest.raises(ValueError, match="at least one token"):
        generator.generate([[]], 4)


def test_a_seed_repeats_itself_in_any_company(generator: Generator) -> None:
    prompts = texts(4, 3, 12, seed=11)
    options: dict[str, Any] = {"temperature": 1.0, "top_p": 0.95}
    first = generator.generate(prompts, 10, seed=[1, 2, 3, 4], **options)
    again = generator.generate(prompts[2:], 10, seed=[3, 4], **options)
    assert [c.token_ids for c in first[2:]] == [c.token_ids for c in again]
    assert len({tuple(c.token_ids) for c in generator.generate([prompts[0]] * 5, 10, seed=7, **options)}) > 1
    assert [c.token_ids for c in first] != [c.token_ids for c in generator.generate(prompts, 10, seed=9, **options)]


def test_unwanted_completions_end(generator: Generator) -> None:
    prompts = texts(3, 4, 9, seed=12)
    whole = generator.generate(prompts, 10)
    asked = [0, 0, 0]

    def wanted(number: int) -> bool:
        asked[number] += 1
        return number != 1 or asked[1] <= 4

    found = generator.generate(prompts, 10, should_continue=wanted)
    # The first step reads the prompt, gives the first token and goes on to the second; then it is one a step.
    assert found[1].token_ids == whole[1].token_ids[:5]
    assert found[1].text == generator.decode(found[1].token_ids)
    assert [found[0].token_ids, found[2].token_ids] == [whole[0].token_ids, whole[2].token_ids]


def test_context_length_of_models_that_say_nothing() -> None:
    class Silent:
        model_max_length = 10**30

    assert context_length(Silent(), Silent()) == 2048
    Silent.model_max_length = 77
    assert context_length(Silent(), Silent()) == 77


def test_load(model: Any, tokenizer: Any, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    loaded = Generator.load(str(tmp_path))
    assert loaded.max_length == CONTEXT
    assert loaded.eos_ids == {tokenizer.eos_token_id}
    ids = loaded.encode("영화 이야기")
    assert loaded.decode(ids) == "영화 이야기"
    assert loaded.loglikelihoods([(ids, [5])])[0][0] == pytest.approx(alone(model, ids, [5])[0], abs=TOLERANCE)
