"""Sequences that join and leave between steps get what each gets alone from Hugging Face's own `generate`."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from kit19_ray.lm.continuous_batching import BatchLimits, ContinuousBatch
from kit19_ray.lm.decoding import DecodingSequence
from kit19_ray.lm.forward_pass import ForwardPass
from kit19_ray.lm.loaded_model import LoadedModel, compute_dtype
from kit19_ray.lm.sampling import SamplingParams

VOCABULARY, CONTEXT, EOS = 211, 160, 0
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": CONTEXT,
    "pad_token_id": 1,
    "bos_token_id": EOS,
    "eos_token_id": EOS,
}
GROUPED = {**SIZES, "num_key_value_heads": 2}


class Tokenizer:
    """Each token is one letter; enough to end texts and to look for stop sequences."""

    eos_token_id = EOS
    model_max_length = CONTEXT

    def decode(self, ids: list[int], **_: Any) -> str:
        return "".join(chr(0xAC00 + token) for token in ids)


def made(name: str) -> LoadedModel:
    import transformers

    configs: dict[str, Callable[[], Any]] = {
        "gpt_neox": lambda: transformers.GPTNeoXForCausalLM(transformers.GPTNeoXConfig(**SIZES)),
        "llama": lambda: transformers.LlamaForCausalLM(transformers.LlamaConfig(**GROUPED)),
        "mistral": lambda: transformers.MistralForCausalLM(transformers.MistralConfig(**GROUPED, sliding_window=12)),
        "gemma3": lambda: transformers.Gemma3ForCausalLM(
            transformers.Gemma3TextConfig(
                **GROUPED, head_dim=8, sliding_window=12, layer_types=["sliding_attention", "full_attention"]
            )
        ),
        "gpt2": lambda: transformers.GPT2LMHeadModel(
            transformers.GPT2Config(
                vocab_size=VOCABULARY,
                n_embd=32,
                n_layer=2,
                n_head=4,
                n_positions=CONTEXT,
                eos_token_id=EOS,
                bos_token_id=EOS,
            )
        ),
        "mamba": lambda: transformers.MambaForCausalLM(
            transformers.MambaConfig(
                vocab_size=VOCABULARY,
                hidden_size=32,
                num_hidden_layers=2,
                state_size=4,
                eos_token_id=EOS,
                bos_token_id=EOS,
                pad_token_id=1,
            )
        ),
    }
    torch.manual_seed(1)
    model = configs[name]().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(4)  # fresh weights are so small that every token is about as likely
    return LoadedModel(model, Tokenizer())


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def llama() -> LoadedModel:
    return made("llama")


def prompts(count: int, low: int = 2, high: int = 60, seed: int = 0) -> list[list[int]]:
    rng = random.Random(seed)
    return [[rng.randrange(2, VOCABULARY) for _ in range(rng.randint(low, high))] for _ in range(count)]


@torch.no_grad()
def alone(loaded: LoadedModel, prompt: list[int], tokens: int) -> list[int]:
    """Greedy, by whole forward passes without any cache."""
    ids = list(prompt)
    for _ in range(tokens):
        token = int(loaded.model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].argmax())
        if token in loaded.eos_ids:
            break
        ids.append(token)
    return ids[len(prompt) :]


@pytest.mark.parametrize(
    ("name", "slots"),
    [
        ("gpt_neox", True),
        ("llama", True),
        ("mistral", True),
        ("gemma3", True),
        ("gpt2", True),
        ("mamba", False),
        ("llama alone", False),
    ],
)
def test_answers_do_not_depend_on_company(name: str, slots: bool) -> None:
    loaded = made(name.removesuffix(" alone"))
    if name.endswith("alone"):
        loaded.__dict__["takes_slots"] = False  # as for a model whose state our cache cannot hold
    assert loaded.takes_slots is slots
    batch = ContinuousBatch(loaded, BatchLimits(max_sequences=3, prefill_tokens=16, prefix_tokens=400))
    asked = prompts(9)
    asked += [asked[0] + [5, 6, 7], asked[3]]  # begins like one that was answered, and one again
    rng = random.Random(3)
    sequences = [DecodingSequence(prompt, SamplingParams(max_tokens=rng.randint(1, 20))) for prompt in asked]
    left = list(sequences)
    while left or not batch.is_idle:
        if left and rng.random() < 0.4:
            batch.add(left.pop(0))
        batch.step()
        assert batch.running <= 3
    for prompt, sequence in zip(asked, sequences):
        assert sequence.completion.token_ids == alone(loaded, prompt, sequence.params.max_tokens)
    if slots:
        assert sequences[-1].reused == len(asked[3]) - 1 or len(asked[3]) < 17


def test_a_short_answer_does_not_wait_for_the_long_ones(llama: LoadedModel) -> None:
    batch = ContinuousBatch(llama, BatchLimits(max_sequences=4))
    params = SamplingParams(max_tokens=60, ignore_eos=True)
    long = [DecodingSequence(prompt, params) for prompt in prompts(3, seed=5)]
    for sequence in long:
        batch.add(sequence)
    batch.step()
    short = DecodingSequence(prompts(1, seed=6)[0], SamplingParams(max_tokens=4, ignore_eos=True))
    batch.add(short)
    for _ in range(4):
        batch.step()
    assert short.finished and not any(sequence.finished for sequence in long)
    assert all(len(sequence.completion.token_ids) >= 5 for sequence in long)


def test_a_long_prompt_is_read_in_pieces_between_the_others_tokens(llama: LoadedModel) -> None:
    batch = ContinuousBatch(llama, BatchLimits(max_sequences=2, prefill_tokens=16))
    talking = DecodingSequence([5, 6], SamplingParams(max_tokens=50, ignore_eos=True))
    batch.add(talking)
    batch.step()
    reading = DecodingSequence(prompts(1, 100, 100)[0], SamplingParams(max_tokens=1, ignore_eos=True))
    batch.add(reading)
    before, steps = len(talking.completion.token_ids), 0
    while not reading.finished:
        batch.step()
        steps += 1
    assert steps == 7, "100 tokens by 16"
    assert len(talking.completion.token_ids) == before + steps


def test_a_prompt_that_is_known_costs_no_pass_of_its_own(llama: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = ContinuousBatch(llama, BatchLimits(max_sequences=4, prefix_tokens=500))
    known = prompts(1, 40, 40)[0]
    first = DecodingSequence(known, SamplingParams(max_tokens=6, ignore_eos=True))
    batch.run([first])
    talking = DecodingSequence([5, 6], SamplingParams(max_tokens=50, ignore_eos=True))
    batch.add(talking)
    batch.step()

    passes: list[list[int]] = []
    forward = ForwardPass.__call__

    def counted(self: ForwardPass, first: int, rows: Any, chunks: Any, every: bool = False) -> Any:
        passes.append([len(chunk) for chunk in chunks])
        return forward(self, first, rows, chunks, every)

    monkeypatch.setattr(ForwardPass, "__call__", counted)
    again = [DecodingSequence(known, SamplingParams(max_tokens=6, ignore_eos=True)) for _ in range(2)]
    single = DecodingSequence(known[:1], SamplingParams(max_tokens=6, ignore_eos=True))
    for sequence in (*again, single):
        batch.add(sequence)
    for _ in range(6):
        batch.step()
    assert passes == [[1, 1, 1, 1]] * 6
    assert [s.reused for s in again] == [39, 39]
    assert all(s.completion.token_ids == first.completion.token_ids for s in again)
    assert single.completion.token_ids == alone(llama, known[:1], 6)


def test_rooms_are_given_in_order_and_only_where_they_fit(llama: LoadedModel) -> None:
    batch = ContinuousBatch(llama, BatchLimits(max_sequences=8, cache_tokens=100))
    asked = [DecodingSequence(prompt, SamplingParams(max_tokens=10)) for prompt in prompts(6, 25, 60, seed=7)]
    started = []
    for sequence in asked:
        batch.add(sequence)
    while not batch.is_idle:
        batch.step()
        started += [s for s in asked if s.started is not None and s not in started]
        rows = [s for s in asked if s.started is not None and not s.finished]
        assert len(rows) < 2 or len(rows) * max(len(s.prompt) + 10 for s in rows) <= 100
    assert started == asked
    assert all(s.completion.token_ids == alone(llama, s.prompt, 10) for s in asked)


def test_one_that_is_cancelled_leaves_within_a_step(llama: LoadedModel) -> None:
    batch = ContinuousBatch(llama, BatchLimits(max_sequences=2))
    params = SamplingParams(max_tokens=50, ignore_eos=True)
    one, other, third = (DecodingSequence(prompt, params) for prompt in prompts(3, seed=8))
    for sequence in (one, other, third):
        batch.add(sequence)
    batch.step()
    said = len(one.completion.token_ids)
    one.cancelled.set()
    third.cancelled.set()
    batch.step()
    assert one.finished and len(one.completion.token_ids) == said and third.finished
    assert third.completion.token_ids == [] and not other.finished and batch.running == 1


def test_each_has_its_own_parameters(llama: LoadedModel) -> None:
    prompt = prompts(1, seed=9)[0]
    greedy = alone(llama, prompt, 12)
    asked = {
        "greedy": SamplingParams(12),
        "hot": SamplingParams(12, temperature=1.5, seed=4),
        "hot again": SamplingParams(12, temperature=1.5, seed=4),
        "one choice": SamplingParams(12, temperature=1.5, top_k=1),
        "biased": SamplingParams(3, logit_bias={77: 1000.0}),
        "banned": SamplingParams(12, logit_bias={greedy[0]: -1000.0}),
        "tops": SamplingParams(12, top_logprobs=3),
        "stopped": SamplingParams(12, stop=(Tokenizer().decode(greedy[4:6]),)),
    }
    sequences = {name: DecodingSequence(prompt, params) for name, params in asked.items()}
    ContinuousBatch(llama, BatchLimits(max_sequences=8)).run(list(sequences.values()))
    said = {name: sequence.completion for name, sequence in sequences.items()}
    assert said["greedy"].token_ids == said["one choice"].token_ids == said["tops"].token_ids == greedy
    assert said["hot"].token_ids == said["hot again"].token_ids != greedy
    assert said["biased"].token_ids == [77, 77, 77]
    assert greedy[0] not in said["banned"].token_ids
    assert [len(top) for top in said["tops"].top_logprobs] == [3] * len(greedy) and not said["greedy"].top_logprobs
    assert said["stopped"].finish_reason == "stop" and said["stopped"].text == Tokenizer().decode(greedy[:4])
    (alone_again,) = [DecodingSequence(prompt, asked["hot"])]
    ContinuousBatch(llama, BatchLimits(1)).run([alone_again])
    assert alone_again.completion.token_ids == said["hot"].token_ids


@pytest.mark.parametrize("max_tokens", [0, 3])
def test_prompts_are_scored_in_pieces_too(llama: LoadedModel, max_tokens: int) -> None:
    asked = prompts(4, 1, 60, seed=10)
    params = SamplingParams(max_tokens, score_prompt=True, top_logprobs=2, ignore_eos=True)
    sequences = [DecodingSequence(prompt, params) for prompt in asked]
    ContinuousBatch(llama, BatchLimits(3, prefill_tokens=16, prefix_tokens=300)).run(sequences)
    for prompt, sequence in zip(asked, sequences):
        with torch.no_grad():
            expected = llama.model(torch.tensor([prompt])).logits[0].log_softmax(-1)
        done = sequence.completion
        assert len(done.token_ids) == max_tokens and len(done.prompt_logprobs) == len(prompt)
        assert done.prompt_logprobs[0] is None and done.prompt_top_logprobs[0] is None
        wanted = [float(expected[place - 1, prompt[place]]) for place in range(1, len(prompt))]
        assert done.prompt_logprobs[1:] == pytest.approx(wanted, abs=1e-3)
        for place, top in enumerate(done.prompt_top_logprobs[1:]):
            assert top is not None and list(top) == expected[place].topk(2).indices.tolist()


def test_an_error_ends_those_that_run_and_nobody_else(llama: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = ContinuousBatch(llama, BatchLimits(max_sequences=1))
    params = SamplingParams(max_tokens=4, ignore_eos=True)
    first, second = (DecodingSequence(prompt, params) for prompt in prompts(2, seed=11))
    batch.add(first)
    batch.add(second)

    def fail(*_: Any, **__: Any) -> Any:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(ForwardPass, "__call__", fail)
    assert batch.step() == [first] and isinstance(first.error, RuntimeError)
    monkeypatch.undo()
    while not batch.is_idle:
        batch.step()
    assert second.error is None and second.completion.token_ids[:1] == alone(llama, second.prompt, 1)[:1]


@pytest.mark.parametrize(
    ("stored", "device", "has_units", "expected"),
    [
        (torch.bfloat16, "cpu", False, torch.float32),
        (torch.bfloat16, "cpu", True, torch.bfloat16),
        (torch.float16, "cpu", True, torch.float32),
        (torch.float32, "cpu", False, torch.float32),
        (torch.float32, "cuda", False, torch.float32),
        (torch.bfloat16, "cuda", False, torch.float16),
        (torch.bfloat16, "cuda", True, torch.bfloat16),
    ],
)
def test_weights_are_computed_in_a_type_the_device_is_good_at(
    monkeypatch: pytest.MonkeyPatch, stored: torch.dtype, device: str, has_units: bool, expected: torch.dtype
) -> None:
    from kit19_ray.lm import loaded_model

    monkeypatch.setattr(loaded_model, "_cpu_has_bf16", lambda: has_units)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_: has_units)
    assert compute_dtype(stored, SimpleNamespace(type=device)) == expected  # type: ignore[arg-type]
