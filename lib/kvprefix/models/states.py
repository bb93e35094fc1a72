"""Compute the state that a recurrent layer keeps of a sequence, whatever its length.

A state is two arrays: the last inputs of a short convolution, and what the recurrence carries on. The fields of a
config tell which recurrence it is; the sizes are those of vLLM 0.32, `model_executor/layers/mamba/mamba_utils.py`.
"""

from typing import NamedTuple

from kvprefix.files.paths import InputError
from kvprefix.models.fields import check_positive, dtype_bytes, find_dtype, read_whole


class State(NamedTuple):
    """Numbers of both arrays, heads or channels that ranks divide, and the recurrence's own number type, if any."""

    convolution: int
    recurrence: int
    divided: int
    dtype: str | None = None


def state_bytes(text, config, ranks):
    """Return the bytes of one recurrent layer's state, over all ranks; None if no field describes a state."""
    read = next((read for field, read in _READERS if text.get(field) is not None), None)
    if read is None:
        return None
    state = read(text, ranks)
    if state.divided % ranks:
        expected = f"a divisor of the {state.divided} heads or channels of a recurrent layer"
        raise InputError(f"tensor_parallel is {ranks}; expected {expected}")
    own = find_dtype(config, text)
    dtype = next((text[key] for key in ("mamba_ssm_dtype", "mamba_ssm_cache_dtype") if text.get(key)), state.dtype)
    return state.convolution * dtype_bytes(own) + state.recurrence * dtype_bytes(dtype or own)


def _gated_delta_net(text, _):
    """Read Qwen3-Next's layers; transformers keeps the recurrence in float32."""
    keys = read_whole(text, "linear_num_key_heads") * read_whole(text, "linear_key_head_dim")
    heads, size = read_whole(text, "linear_num_value_heads"), read_whole(text, "linear_value_head_dim")
    kernel = read_whole(text, "linear_conv_kernel_dim")
    recurrence = heads * size * read_whole(text, "linear_key_head_dim")
    return State((kernel - 1) * (2 * keys + heads * size), recurrence, heads, "float32")


def _kimi_delta(text, _):
    """Read Kimi-Linear's layers, as its own config or transformers' names them."""
    own = text.get("linear_attn_config")
    own = own if isinstance(own, dict) else text
    heads, size = read_whole(own, "num_heads", "linear_num_heads"), read_whole(own, "head_dim", "linear_head_dim")
    kernel = read_whole(own, "short_conv_kernel_size", "linear_conv_kernel_dim", default=4)
    return State((kernel - 1) * 3 * heads * size, heads * size * size, heads, "float32")


def _mamba(text, ranks):
    """Read Mamba-1 (no heads) or Mamba-2 (heads of channels, whose inputs share groups)."""
    state = read_whole(text, "mamba_d_state", "ssm_state_size", "state_size")
    kernel = read_whole(text, "mamba_d_conv", "conv_kernel")
    names = "mamba_n_heads", "mamba_num_heads", "n_mamba_heads"
    heads = next((text[key] for key in names if text.get(key) is not None), None)
    if heads is None and "state_size" in text:
        heads = text.get("num_heads")  # of Mamba2, which has no attention heads
    if heads is None or text.get("mamba_dt_rank") is not None:
        inner = _read_inner(text)
        return State((kernel - 1) * inner, inner * state, inner)
    heads = check_positive(heads, "mamba heads")
    inner = heads * _read_head(text, heads)
    if text.get("mamba_d_ssm") not in (None, inner):
        raise InputError(f"mamba_d_ssm is {text['mamba_d_ssm']!r}; expected heads x head size, {inner}")
    if text.get("mamba_d_ssm") is None and "mamba_expand" in text and _read_inner(text) != inner:
        raise InputError(f"mamba_expand x hidden_size is {_read_inner(text)}; expected heads x head size, {inner}")
    groups = read_whole(text, "mamba_n_groups", "mamba_ngroups", "n_groups", default=1)
    groups = groups if groups % ranks == 0 else ranks  # a group lies on every rank whose heads need it
    return State((kernel - 1) * (inner + 2 * groups * state), inner * state, heads)


def _read_inner(text):
    """Return how many channels a Mamba layer has inside."""
    if "mamba_expand" not in text and text.get("intermediate_size") is not None and "state_size" in text:
        return read_whole(text, "intermediate_size")
    return read_whole(text, "mamba_expand", "expand", default=2) * read_whole(text, "hidden_size", "d_model")


def _read_head(text, heads):
    """Return the channels of a head of Mamba-2."""
    names = ("mamba_d_head", "mamba_head_dim", "mamba_headdim", *(["head_dim"] if "state_size" in text else []))
    size = next((text[key] for key in names if text.get(key) is not None), "auto")
    if size != "auto":
        return check_positive(size, "size of a mamba head")
    size, rest = divmod(inner := _read_inner(text), heads)
    if rest:
        raise InputError(f"a Mamba layer has {inner} channels; expected a multiple of its {heads} heads")
    return size


def _linear_recurrent_unit(text, _):
    """Read RecurrentGemma's layers, whose state transformers keeps in float32."""
    width = read_whole(text, "lru_width", "hidden_size")
    return State((read_whole(text, "conv1d_width", default=4) - 1) * width, width, width, "float32")


def _short_convolution(text, _):
    """Read LFM2's layers, which keep the inputs of a convolution only."""
    width = read_whole(text, "conv_dim", "hidden_size")
    return State((read_whole(text, "conv_L_cache") - 1) * width, 0, width)


def _lightning(text, _):
    """Read MiniMax's layers of linear attention: a matrix per head."""
    heads = read_whole(text, "num_attention_heads")
    size = read_whole(text, "head_dim", default=0) or read_whole(text, "hidden_size") // heads
    return State(0, heads * size * size, heads)


_READERS = (
    ("linear_num_value_heads", _gated_delta_net), ("linear_attn_config", _kimi_delta),
    ("linear_num_heads", _kimi_delta), ("mamba_d_state", _mamba), ("ssm_state_size", _mamba),
    ("lru_width", _linear_recurrent_unit), ("conv_L_cache", _short_convolution), ("attn_type_list", _lightning),
    ("linear_attn_alpha_factor", _lightning), ("state_size", _mamba),
)  # fmt: skip
