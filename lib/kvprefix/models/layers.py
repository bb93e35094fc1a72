"""Count the bytes that a sequence of tokens takes in a KV cache, by kind of layer.

full: keys and values of every token (MLA: one vector). window: of the last `span` tokens. chunk: of the tokens since
the last multiple of `span`. state: the same for any length. A layer that uses another's keys and values is none.
"""

from typing import NamedTuple

KINDS = ("full", "window", "chunk", "state")


class Layers(NamedTuple):
    """Layers that keep the same.

    Attributes
    ----------
    kind : str
        One of `KINDS`.
    count : int
        How many layers.
    size : int
        Bytes that one of them keeps per token (a state: in all), over all ranks of one replica.
    span : int
        Tokens of a window or a chunk, else 0.
    width : int
        Numbers per token that attention multiplies, (keys + values) / 2 of all query heads; 0 for a state.
    """

    kind: str
    count: int
    size: int
    span: int = 0
    width: int = 0


def sequence_bytes(layers, tokens):
    """Return the bytes of KV cache of one sequence.

    Parameters
    ----------
    layers : sequence of Layers
    tokens : int
        Length of the sequence.

    Returns
    -------
    int
        Bytes over all ranks of one replica. An engine holds more while it computes a prompt: whole blocks, and a
        window's tokens of a whole step.

    Examples
    --------
    A full layer, a window of 4 and a state, each of 10 bytes: 60 + 40 + 10.

    >>> sequence_bytes([Layers("full", 1, 10), Layers("window", 1, 10, 4), Layers("state", 1, 10)], 6)
    110
    """
    return sum(one.count * one.size * _kept_tokens(one, tokens) for one in layers) if tokens else 0


def prefix_bytes(layers, tokens):
    """Return the bytes that a cached prefix takes so that a request can continue behind it.

    A full layer needs all its tokens, a window the last `span`, a recurrent layer one state at its end, and a chunked
    layer the tokens since its last boundary: none if the prefix ends there, because the next token begins a chunk.

    Examples
    --------
    >>> prefix_bytes([Layers("chunk", 1, 10, 4)], 6), prefix_bytes([Layers("chunk", 1, 10, 4)], 8)
    (20, 0)
    """
    boundary = [one.count * one.size * one.span for one in layers if one.kind == "chunk" and tokens % one.span == 0]
    return sequence_bytes(layers, tokens) - (sum(boundary) if tokens else 0)


def marginal_bytes(layers):
    """Return the bytes that each further token of a long sequence takes: those of layers with full attention."""
    return sum(one.count * one.size for one in layers if one.kind == "full")


def deal_layers(buckets):
    """Deal layers into the groups in which vLLM keeps a KV cache.

    Parameters
    ----------
    buckets : dict of (str, int or None, int) to int
        By kind, span and bytes: how many layers keep the same.

    Returns
    -------
    layers : int
        Of a group; the last one of a bucket may have fewer, and is padded.
    groups : dict of (str, int or None, int) to int
        How many groups each bucket fills, in the order given.

    Notes
    -----
    vLLM 0.32, `v1/core/kv_cache_utils.py`: layers of one kind and span are one group, whatever each takes. Else a group
    takes as many layers as the smallest bucket has, or as the largest if that has less than 1.5 times as many.

    Examples
    --------
    >>> deal_layers({("window", 512, 8): 12, ("full", None, 8): 2})
    (2, {('window', 512, 8): 6, ('full', None, 8): 1})
    """
    if len({(kind, span) for kind, span, _ in buckets}) == 1:
        return sum(buckets.values()), {max(buckets): 1}
    least, most = min(buckets.values()), max(buckets.values())
    layers = most if most < 1.5 * least else least
    return layers, {bucket: -(-count // layers) for bucket, count in buckets.items()}


def _kept_tokens(one, tokens):
    """Return of how many of a sequence's tokens a layer keeps something; a state counts as one."""
    if one.kind == "window":
        return min(tokens, one.span)
    if one.kind == "chunk":
        return (tokens - 1) % one.span + 1
    return 1 if one.kind == "state" else tokens
