"""Attention over packed rows without a mask: each example is a sequence of its own to flash attention.

A mask rules flash attention out in SDPA, and what is left computes all `seq_len x seq_len` scores of a row although an
example of 80 tokens needs 80 x 80. `torch.nn.attention.varlen` takes the examples' borders instead; on a CPU, which has
no such operator, one example is attended to after the other. transformers has a door for such a function: it is
registered under NAME, and `model.set_attn_implementation(NAME)` lets the model use it.

The rows of a batch are laid end to end, `[1, rows * seq_len]`; the borders are counted on the host, so that the device
is never waited for.
"""

from __future__ import annotations

import copy
import logging
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from kit19_ray.errors import TrainError

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

NAME = "kit19_packed"
_MAX_HEAD_SIZE = 256  # of FlashAttention 2
_FIRST_CAPABILITY = (8, 0)  # Ampere: FlashAttention 2 runs on nothing older

Int32 = npt.NDArray[np.int32]


def register() -> None:
    """Makes NAME known to transformers; a second call changes nothing."""
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(NAME, packed_attention)
    AttentionMaskInterface.register(NAME, _no_mask)


def borders(position_ids: Int32) -> tuple[Int32, int]:
    """Where the examples of packed rows begin once the rows are laid end to end, and the longest one's length.

    Args:
        position_ids: int32 `[rows, seq_len]`; they restart at every example, and a row begins one.

    Returns:
        int32 `[examples + 1]`: 0, each further beginning, the number of tokens.
    """
    flat = position_ids.reshape(-1)
    first = flat == 0
    # A row begins an example whatever its first position says: nothing is read on from the row before it, with which it
    # only shares memory.
    first[:: position_ids.shape[1]] = True
    found = np.append(np.flatnonzero(first), len(flat)).astype(np.int32)
    return found, int(np.diff(found).max())


def why_masked(model: Any, device: torch.device, dtype: torch.dtype) -> str | None:
    """What keeps `model` from this attention, in words; None where nothing does."""
    import torch

    if device.type not in ("cuda", "cpu"):
        return "it runs on GPUs and CPUs alone"
    if device.type == "cuda":
        if torch.cuda.get_device_capability(device) < _FIRST_CAPABILITY:
            return f"{torch.cuda.get_device_name(device)} is older than what flash attention runs on"
        if dtype not in (torch.bfloat16, torch.float16):
            return f"flash attention does not compute in {dtype}"
    if not getattr(model, "_supports_attention_backend", False):  # transformers': any function may attend
        return f"{type(model).__name__} attends by itself"
    return unfit(model.config.get_text_config()) or _loses_borders(model)


def _loses_borders(model: Any) -> str | None:
    """What a model of the same class says when one layer of each kind reads two tokens on the meta device.

    Some hand their keyword arguments down to the attention and some do not, which nothing but a forward pass shows.
    """
    import torch

    config = copy.deepcopy(model.config)
    text = config.get_text_config()
    kinds = getattr(text, "layer_types", None)
    text.num_hidden_layers = 1 + max(map(kinds.index, kinds)) if kinds else 1
    if kinds:
        text.layer_types = kinds[: text.num_hidden_layers]
    register()
    try:
        with torch.device("meta"):
            probe = type(model)(config).to(torch.bfloat16)
            probe.set_attn_implementation(NAME)
            places, cuts = torch.tensor([[0, 0]]), torch.tensor([0, 1, 2], dtype=torch.int32)
            by_borders = {"cu_seq_lens_q": cuts, "cu_seq_lens_k": cuts, "max_length_q": 1, "max_length_k": 1}
            # With a mask that hides nothing transformers does not look for borders in the positions' values.
            everything = torch.ones_like(places, dtype=torch.bool)
            probe(input_ids=places, position_ids=places, attention_mask=everything, use_cache=False, **by_borders)
    except TrainError as error:
        return error.message
    except Exception as error:  # noqa: BLE001 - experts are chosen by values, which this device has none of
        log.debug("%s was not tried with borders: %s", type(model).__name__, error)
    return None


def unfit(config: Any) -> str | None:
    """What an architecture asks of its attention that flash attention on packed rows does not do; None: nothing."""
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    if size > _MAX_HEAD_SIZE or size % 8:
        return f"its heads are {size} wide; flash attention takes multiples of 8 up to {_MAX_HEAD_SIZE}"
    if getattr(config, "attn_logit_softcapping", None):
        return "it caps its attention scores"
    if getattr(config, "attention_dropout", None) or getattr(config, "attn_pdrop", None):
        return "it has dropout in its attention"
    if getattr(config, "kv_lora_rank", None):
        return "its keys are wider than its values"
    if getattr(config, "linear_conv_kernel_dim", None) or getattr(config, "mamba_d_state", None):
        return "some of its layers are recurrent"
    return None


def packed_attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention within each example, as transformers calls it.

    Args:
        query: `[1, heads, tokens, head_size]`.
        key, value: `[1, kv_heads, tokens, head_size]`; fewer heads are shared by groups of queries.
        sliding_window: tokens a query sees at most, itself included.
        kwargs: `cu_seq_lens_q` int32 `[examples + 1]` and `max_length_q`, which the model hands on from its caller.

    Returns:
        `[1, tokens, heads, head_size]`, and no weights.

    Raises:
        TrainError: the model asks for what this does not compute, or loses the borders on the way.
    """
    # These names are transformers' own for flash attention; a model that takes **kwargs down to its attention hands
    # them on. One that does not would train on whole rows as if they were one text, silently: hence the error.
    cu_seq_lens, longest = kwargs.get("cu_seq_lens_q"), kwargs.get("max_length_q")
    name = type(module).__name__
    if cu_seq_lens is None or longest is None:
        raise TrainError(f"{name} does not hand the examples' borders to its attention", hint=_MASKED)
    for asked in ("softcap", "s_aux", "position_bias"):
        if kwargs.get(asked) is not None:
            raise TrainError(f"{name} asks for `{asked}`, which flash attention does not do", hint=_MASKED)
    if dropout and module.training:
        raise TrainError(f"{name} has dropout in its attention, which flash attention on packed rows does not do")
    # [1, heads, tokens, size] -> [tokens, heads, size]: views, nothing is copied.
    q, k, v = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
    if query.device.type == "cpu":
        return _one_by_one(q, k, v, cu_seq_lens.tolist(), scaling, sliding_window)[None], None
    from torch.nn.attention.varlen import varlen_attn

    out = varlen_attn(
        q,
        k,
        v,
        cu_seq_lens,
        cu_seq_lens,
        longest,
        longest,
        scale=scaling,
        # transformers counts the token itself into the window, the kernel does not.
        window_size=(-1 if sliding_window is None else sliding_window - 1, 0),  # (left, right): 0 is causal
        enable_gqa=q.shape[1] != k.shape[1],
    )
    assert not isinstance(out, tuple)  # no auxiliary output was asked for
    return out[None], None


_MASKED = "set train.attention=masked"


def _one_by_one(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, cuts: list[int], scale: float | None, window: int | None
) -> torch.Tensor:
    """The same by ordinary attention, an example at a time: what a CPU runs, and what the kernel is compared with."""
    import torch

    parts = []
    for begin, end in pairwise(cuts):
        one, two, three = (tensor[begin:end].transpose(0, 1)[None] for tensor in (q, k, v))
        mask = None
        if window is not None and end - begin > window:
            at = torch.arange(end - begin)
            behind = at[:, None] - at[None, :]
            mask = (behind >= 0) & (behind < window)
        out = torch.nn.functional.scaled_dot_product_attention(
            one, two, three, attn_mask=mask, is_causal=mask is None, scale=scale, enable_gqa=q.shape[1] != k.shape[1]
        )
        parts.append(out[0].transpose(0, 1))
    return torch.cat(parts)


def _no_mask(*_: Any, **__: Any) -> None:
    """What transformers asks for a mask: there is none, the borders do its work."""
