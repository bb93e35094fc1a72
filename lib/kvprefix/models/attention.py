"""Compute the keys and values that a layer with attention keeps per token, from the fields of a config."""

from typing import NamedTuple

from kvprefix.files.paths import InputError
from kvprefix.models.fields import LAYERS, check_positive, dtype_bytes, read_whole

_KV_HEADS = ("num_key_value_heads", "num_kv_heads", "n_head_kv", "multi_query_group_num", "num_attention_groups")


class Attention(NamedTuple):
    """What one layer keeps: KV heads, numbers per head of keys and of values, query heads, and its kind."""

    kv_heads: int
    keys: int
    values: int
    heads: int
    kind: str

    def bytes_per_token(self, dtype, ranks):
        """Return the bytes of one token, over all ranks: heads are divided, or copied if there are more ranks."""
        if self.kv_heads % ranks and ranks % self.kv_heads:
            expected = f"a divisor or a multiple of {self.kv_heads} KV heads"
            raise InputError(f"tensor_parallel is {ranks}; expected {expected}")
        return max(self.kv_heads, ranks) * (self.keys + self.values) * dtype_bytes(dtype)

    @property
    def width(self):
        """Numbers per token that a query multiplies, (keys + values) / 2 over its heads."""
        return self.heads * (self.keys + self.values) // 2


class Latent(NamedTuple):
    """Multi-head latent attention: one vector per token for all heads, and an index's key if there is one."""

    rank: int
    rope: int
    index: int
    width: int
    kind: str = "MLA"
    kv_heads: int = 1

    @property
    def keys(self):
        """Numbers of the vector."""
        return self.rank + self.rope

    def bytes_per_token(self, dtype, ranks):
        """Return the bytes of one token over all ranks, each of which holds all of it.

        With an index (DeepSeek-V3.2), fp8 is vLLM's `fp8_ds_mla`: `rank` bytes, a float32 scale per 128 of them, and
        the rotary part in bfloat16. The index's key is fp8 with a float32 scale per 128, whatever the type.
        """
        size = dtype_bytes(dtype)
        vector = (self.rank + self.rope) * size
        if self.index and size == 1:
            vector = self.rank + 4 * -(-self.rank // 128) + 2 * self.rope
        return ranks * (vector + (self.index + 4 * -(-self.index // 128) if self.index else 0))


def read_attention(text, kind, layer=0):
    """Return the Attention or Latent of a layer.

    Parameters
    ----------
    text : dict
        Fields of the language model.
    kind : str
        ``full``, ``window`` or ``chunk``: some families have other heads in windows (`swa_...`) or in full layers
        (`global_head_dim`).
    layer : int
        Its number, for fields that are lists.
    """
    own = _own_fields(text, kind, layer)
    if own.get("kv_lora_rank") is not None:
        return _read_latent(own)
    heads = _at(own, layer, *(("num_query_heads",) if isinstance(own.get("num_query_heads"), list) else ()),
                "num_attention_heads", "n_head", "n_heads")  # fmt: skip
    kv_heads = _read_kv_heads(own, heads, layer)
    if heads % kv_heads:
        raise InputError(f"num_key_value_heads is {kv_heads}; expected a divisor of the {heads} attention heads")
    keys = read_whole(own, "attention_head_dim", "head_dim", "kv_channels", default=0)
    if not keys:
        keys, rest = divmod(hidden := read_whole(own, "hidden_size", "n_embd", "d_model"), heads)
        if rest:
            raise InputError(f"hidden_size is {hidden}; expected a multiple of the {heads} heads, or head_dim besides")
    values = own.get("v_head_dim") or keys
    form = "MHA" if kv_heads == heads else "MQA" if kv_heads == 1 else "GQA"
    return Attention(kv_heads, keys, check_positive(values, "v_head_dim"), heads, form)


def _read_latent(text):
    rank, rope = read_whole(text, "kv_lora_rank"), read_whole(text, "qk_rope_head_dim")
    index = read_whole(text, "index_head_dim") if text.get("index_head_dim") else 0
    heads = read_whole(text, "num_attention_heads", "n_head", default=1)
    nope = read_whole(text, "qk_nope_head_dim", default=128)
    return Latent(rank, rope, index, heads * (nope + rope + read_whole(text, "v_head_dim", default=nope)) // 2)


def _own_fields(text, kind, layer):
    """Return the fields with those of a kind of layer, or of one layer, in their place."""
    names = {"head_dim": "swa_head_dim", "v_head_dim": "swa_v_head_dim", "num_key_value_heads":
             "swa_num_key_value_heads", "num_attention_heads": "swa_num_attention_heads"}  # fmt: skip
    if kind == "full":
        names = {"head_dim": "global_head_dim", "num_key_value_heads": "num_global_key_value_heads"}
    layers = text.get("per_layer_config")  # as transformers writes what differs by layer
    layers = layers.items() if isinstance(layers, dict) else ()
    found = [one for key, one in layers if key.isdigit() and int(key) == layer and isinstance(one, dict)]
    return {**text, **{name: text[own] for name, own in names.items() if text.get(own) is not None}, **dict(*found[:1])}


def _read_kv_heads(text, heads, layer):
    blocks = text.get("block_configs")
    if isinstance(blocks, list):  # DeciLM: query heads per KV head, layer by layer
        own = blocks[layer].get("attention") if isinstance(blocks[layer], dict) else None
        group = read_whole(own if isinstance(own, dict) else {}, "n_heads_in_group")
        if heads % group:
            raise InputError(f"n_heads_in_group is {group}; expected a divisor of the {heads} attention heads")
        return heads // group
    own = text.get("attn_config")  # of DBRX and MPT
    if own is not None and not isinstance(own, dict):
        raise InputError(f"attn_config is {own!r}; expected an object")
    if own and own.get("kv_n_heads") is not None:
        return check_positive(own["kv_n_heads"], "kv_n_heads")
    if text.get("multi_query") and not text.get("new_decoder_architecture"):
        return 1
    if text.get("num_key_value_heads_per_layer"):
        return _at(text, layer, "num_key_value_heads_per_layer")
    return _at(text, layer, *_KV_HEADS, default=heads)


def _at(text, layer, *names, default=None):
    """Return the first of these fields that is set; of a list, a layer's entry."""
    name = next((name for name in names if text.get(name) is not None), names[0])
    value = text.get(name)
    if isinstance(value, list) and len(value) == next((text[key] for key in LAYERS if text.get(key)), None):
        return check_positive(value[layer], name)
    return read_whole(text, *names, default=default)
