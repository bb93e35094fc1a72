"""Find the kind of each layer of a model: what its config says, by whichever field its family uses.

A rule returns a list of kinds, a layer each: full, window, chunk, state, both (full and state beside each other) or
none (nothing cached). The first rule whose fields are set decides.
"""

import re

from kvprefix.files.checks import check_whole
from kvprefix.files.paths import InputError
from kvprefix.files.words import count
from kvprefix.models.fields import LAYERS, MOST_LAYERS, check_positive, read_optional, read_whole

_NAMES = {
    "full_attention": "full", "attention": "full", "global_attention": "full", "indexed_attention": "full",
    "sliding_attention": "window", "sliding_window": "window", "sliding_window_attention": "window",
    "local_attention": "window", "chunked_attention": "chunk", "linear_attention": "state", "mamba": "state",
    "mamba2": "state", "recurrent": "state", "conv": "state", "hybrid": "both", "parallel": "both",
    "mlp": "none", "moe": "none",
}  # fmt: skip
_LETTERS = {"M": "state", "*": "full", "-": "none", "E": "none", "L": "window", "G": "full"}
# Fields of caches that the number of tokens alone does not determine, or whose layout is not known here.
_OTHER = re.compile(
    r"is_encoder_decoder$|cross_attention_layers$|compress_ratios$|compress_rates$|rwkv|attention_hidden_size_rwkv|"
    r"num_memory_tokens$|mb_per_layer$|xlstm|ssm_cfg$|attn_cfg$|attn_layer_idx$"
)
# Fields of recurrent layers and windows, which some rule must have used.
_UNUSED = re.compile(
    r"mamba_|ssm_|lru_|linear_(attn|key|num|value)|attention_chunk_size$|recurrent_|hybrid_|conv_L_cache$"
)


def list_kinds(text):
    """Return the kind of each layer.

    Parameters
    ----------
    text : dict
        Fields of the language model.

    Returns
    -------
    list of str

    Raises
    ------
    InputError
        Fields that contradict each other, or from which no cache can be computed: named.
    """
    other = next((key for key, value in text.items() if value and _OTHER.match(key)), None)
    if other:
        raise InputError(
            f"{other} is set: what such layers keep is not known here; expected attention (also windows, chunks, MLA), "
            "Mamba, gated delta nets, RG-LRU, short convolutions or linear attention"
        )
    if text.get("index_head_dim") and text.get("kv_lora_rank") is None:
        raise InputError("index_head_dim is set without kv_lora_rank; expected an index of latent attention (MLA) only")
    layers = _count_layers(text)
    kinds = next((found for rule in _RULES if (found := rule(text, layers)) is not None), None)
    if kinds is None:
        unused = next((key for key, value in text.items() if value and _UNUSED.match(key)), None)
        if unused:
            raise InputError(f"{unused} is set, but no field says which layers it is of; expected layer_types besides")
        kinds = ["full"] * layers
    kinds = _share(text, kinds)
    return kinds * 2 if text.get("zero_expert_num") is not None else kinds  # LongCat-Flash attends twice in a layer


def _count_layers(text):
    lists = (text.get(key) for key in ("hybrid_override_pattern", "layers_block_type", "layer_types"))
    known = next((len(one) for one in lists if isinstance(one, str | list) and one), None)
    layers = read_whole(text, *LAYERS, default=known)
    return check_whole(layers, "num_hidden_layers", f"a whole number, 1 to {MOST_LAYERS:,}", most=MOST_LAYERS)


def _share(text, kinds):
    """Return the kinds without layers that use another's keys and values."""
    last = read_optional(text, "num_kv_shared_layers")
    if last and last >= len(kinds):
        raise InputError(f"num_kv_shared_layers is {last}; expected fewer than the {count(len(kinds), 'layer')}")
    kinds = kinds[: len(kinds) - last] + ["none"] * last
    if text.get("use_cla"):
        factor = read_whole(text, "cla_share_factor")
        kinds = [kind if k % factor == 0 else "none" for k, kind in enumerate(kinds)]
    return kinds


def _by_names(text, layers):
    field = next((key for key in ("layer_types", "layers_block_type") if text.get(key)), None)
    if field is None:
        return None
    names = text[field] if isinstance(text[field], list) else [text[field]]
    wrong = next((name for name in names if not isinstance(name, str) or name not in _NAMES), None)
    if wrong is not None:
        raise InputError(f"{field} holds {wrong!r}; expected {', '.join(_NAMES)}")
    further = read_optional(text, "num_nextn_predict_layers")  # drafting layers, which some files list too
    return [_NAMES[name] for name in _check_length(names, field, layers, further)]


def _check_length(items, field, layers, further=0):
    """Return the items of all layers, or raise InputError."""
    if not isinstance(items, list | str):
        raise InputError(f"{field} is {items!r}; expected a list with an entry per layer")
    if len(items) not in (layers, layers + further):
        has = count(len(items), "entry", "entries")
        raise InputError(f"{field} has {has}; expected one per layer, num_hidden_layers is {layers}")
    return items[:layers]


def _by_letters(text, layers):
    """Read NemotronH's pattern, `M` Mamba, `*` attention, `-` and `E` neither."""
    pattern = text.get("hybrid_override_pattern")
    return None if not isinstance(pattern, str) else _spell(pattern, "hybrid_override_pattern", layers)


def _spell(pattern, field, layers):
    if set(pattern) - set(_LETTERS):
        raise InputError(f"{field} is {pattern!r}; expected letters of {''.join(_LETTERS)}")
    return [_LETTERS[letter] for letter in _check_length(pattern, field, layers)]


def _by_list(text, layers):
    """Read a list that has a number per layer (MiniMax: 1 is full; MiMo: 1 is a window; DeciLM: a block)."""
    for field, kinds in (("attn_type_list", ("state", "full")), ("hybrid_layer_pattern", ("full", "window"))):
        if (found := text.get(field)) is not None:
            if not isinstance(found, list) or set(map(repr, found)) - {"0", "1"}:
                raise InputError(f"{field} is {found!r}; expected a list of 0 and 1, one per layer")
            return [kinds[one] for one in _check_length(found, field, layers)]
    blocks = text.get("block_configs")
    if isinstance(blocks, list):
        found = [(one.get("attention") or {}) if isinstance(one, dict) else {} for one in blocks]
        nothing = [one.get("no_op") or one.get("replace_with_linear") for one in found]
        return ["none" if one else "full" for one in _check_length(nothing, "block_configs", layers)]
    return None


def _by_places(text, layers):
    """Read which layers have attention; the others are recurrent."""
    own = text.get("linear_attn_config")
    if isinstance(own, dict) and own.get("full_attn_layers"):  # Kimi-Linear counts from 1
        return _place(own["full_attn_layers"], "full_attn_layers", layers, "full", first=1)
    for field, kind in (("attn_layer_indices", "full"), ("full_attn_idxs", "full"), ("hybrid_layer_ids", "both")):
        if text.get(field):
            return _place(text[field], field, layers, kind)
    return None


def _place(places, field, layers, kind, first=0):
    known = isinstance(places, list) and all(type(one) is int and first <= one < layers + first for one in places)
    if not known:
        raise InputError(f"{field} is {places!r}; expected numbers of layers, {first} to {layers + first - 1}")
    return [kind if k + first in places else "state" for k in range(layers)]


def _by_period(text, layers):
    """Read a rhythm: Jamba's period and offset, Qwen3-Next's interval, RecurrentGemma's blocks."""
    if text.get("attn_layer_period"):
        period, offset = read_whole(text, "attn_layer_period"), text.get("attn_layer_offset", 0)
        if type(offset) is not int or not 0 <= offset < period:
            raise InputError(f"attn_layer_offset is {offset!r}; expected 0 to {period - 1}, below attn_layer_period")
        return ["full" if k % period == offset else "state" for k in range(layers)]
    if text.get("full_attention_interval"):
        every = read_whole(text, "full_attention_interval")
        return ["state" if (k + 1) % every else "full" for k in range(layers)]
    if text.get("block_types"):
        names = {"recurrent": "state", "attention": "window"}
        blocks = text["block_types"]
        if not isinstance(blocks, list) or not all(isinstance(one, str) and one in names for one in blocks):
            raise InputError(f"block_types is {blocks!r}; expected a list of recurrent and attention")
        return [names[blocks[k % len(blocks)]] for k in range(layers)]
    return None


def _by_rope(text, layers):
    """Read Llama-4's layers: those with rotary positions (1 in `no_rope_layers`) attend within a chunk."""
    if not text.get("attention_chunk_size"):
        return None
    if text.get("no_rope_layers"):
        return ["chunk" if one else "full" for one in _check_length(text["no_rope_layers"], "no_rope_layers", layers)]
    every = read_whole(text, "no_rope_layer_interval", default=4)
    return ["chunk" if (k + 1) % every else "full" for k in range(layers)]


def _by_window(text, layers):
    """Read a sliding window: of all layers, of all but every n-th, or of those from `max_window_layers` on."""
    if text.get("sliding_window") is None or text.get("use_sliding_window") is False:
        return None
    pattern = text.get("sliding_window_pattern", text.get("_sliding_window_pattern"))
    if isinstance(pattern, str):
        return _spell((pattern * layers)[:layers], "sliding_window_pattern", layers)
    if pattern is not None:
        every = check_positive(pattern, "sliding_window_pattern")
        return ["window" if (k + 1) % every else "full" for k in range(layers)]
    first = read_optional(text, "max_window_layers") if text.get("use_sliding_window") else 0
    return ["full" if k < first else "window" for k in range(layers)]


def _by_state(text, layers):
    """Read models whose every layer is the same: Falcon-H1 has both, Mamba has no attention."""
    if text.get("mamba_d_ssm") is not None and text.get("num_attention_heads"):
        return ["both"] * layers
    recurrent = text.get("state_size") is not None and not text.get("num_attention_heads")
    return ["state"] * layers if recurrent else None


_RULES = (
    _by_names, _by_letters, _by_list, _by_places, _by_period, _by_rope, _by_window, _by_state,
)  # fmt: skip
