"""Read which layers a model's config describes, and what each keeps: a model's KV cache as a function of length."""

from typing import NamedTuple

from kvprefix.files.paths import InputError
from kvprefix.models.attention import read_attention
from kvprefix.models.fields import check_positive, find_kv_dtype, find_text, read_whole
from kvprefix.models.kinds import list_kinds
from kvprefix.models.layers import KINDS, Layers, marginal_bytes, prefix_bytes, sequence_bytes
from kvprefix.models.states import state_bytes

AVERAGE_AT = 8192  # tokens of the sequence over which a cache that is not the same for every token is averaged


class KVCache(NamedTuple):
    """A model's KV cache.

    Attributes
    ----------
    layers : tuple of Layers
        By kind, with their bytes over all ranks of one replica.
    attention : str
        MHA, GQA, MQA or MLA, or none.
    kv_heads, head_size : int
        Of the first layer with attention; the vector of MLA counts as one head.
    count : int
        Layers of the model, those that keep nothing included.
    assumed : tuple of str
        Fields that the config leaves out and transformers' defaults fill in.
    ranks : int
        Ranks of one replica, each of which holds an equal part.
    """

    layers: tuple
    attention: str
    kv_heads: int
    head_size: int
    count: int
    assumed: tuple
    ranks: int

    def sequence_bytes(self, tokens):
        """Return the bytes of one sequence of so many tokens."""
        return sequence_bytes(self.layers, tokens)

    def prefix_bytes(self, tokens):
        """Return the bytes of a cached prefix behind which a request can continue."""
        return prefix_bytes(self.layers, tokens)

    @property
    def marginal_bytes(self):
        """Bytes of each further token of a long sequence."""
        return marginal_bytes(self.layers)

    @property
    def is_even(self):
        """Whether each token takes the same, whatever the length."""
        return all(one.kind == "full" for one in self.layers)

    @property
    def bytes_per_token(self):
        """Bytes per token; if they depend on the length, the mean of a sequence of `AVERAGE_AT` tokens, rounded up."""
        return self.marginal_bytes if self.is_even else -(-self.sequence_bytes(AVERAGE_AT) // AVERAGE_AT)

    def describe(self):
        """Return the layers in words.

        >>> from kvprefix.models.layers import Layers
        >>> KVCache((Layers("full", 1, 8), Layers("window", 5, 8, 4096)), "GQA", 1, 2, 6, (), 1).describe()
        '1 full, 5 of a window of 4,096'
        """
        said = {"full": "{n} full", "window": "{n} of a window of {span:,}", "chunk": "{n} of chunks of {span:,}",
                "state": "{n} with a state"}  # fmt: skip
        return ", ".join(said[one.kind].format(n=one.count, span=one.span) for one in self.layers)


def read_cache(config, *, dtype=None, tensor_parallel=1):
    """Read a model's KV cache from its config; see `memory.kv_bytes_per_token` for the arguments."""
    text, assumed = find_text(config)
    kinds, ranks = list_kinds(text), check_positive(tensor_parallel, "tensor_parallel")
    dtype = dtype or find_kv_dtype(config, text)
    found, first = {}, None
    for place, kind in enumerate(kinds):
        parts = ("full", "state") if kind == "both" else () if kind == "none" else (kind,)
        for part in parts:
            attention = None if part == "state" else read_attention(text, part, place)
            first = first or attention
            one = _size(part, attention, text, config, dtype, ranks)
            found[one] = found.get(one, 0) + 1
    layers = tuple(sorted((one._replace(count=n) for one, n in found.items()), key=lambda one: KINDS.index(one.kind)))
    return KVCache(layers, first.kind if first else "none", first.kv_heads if first else 0, first.keys if first else 0,
                   len(kinds), assumed, ranks)  # fmt: skip


def _size(kind, attention, text, config, dtype, ranks):
    """Return one layer with its bytes."""
    if kind == "state":
        size = state_bytes(text, config, ranks)
        if size is None:
            raise InputError("a layer is recurrent, but no field says the size of its state; expected mamba_d_state, "
                             "linear_num_value_heads, lru_width, conv_L_cache or the like")  # fmt: skip
        return Layers("state", 1, size)
    span = 0
    if kind == "window":
        span = read_whole(text, "sliding_window", "attention_window_size", "sliding_window_size")
    if kind == "chunk":
        span = read_whole(text, "attention_chunk_size")
    return Layers(kind, 1, attention.bytes_per_token(dtype, ranks), span, attention.width)
