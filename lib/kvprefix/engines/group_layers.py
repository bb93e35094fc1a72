"""Deal a model's layers into vLLM's groups: from a `config.json` to groups of layers.

Layers of one kind, span and size are a bucket, which fills one group or more (`models.layers.deal_layers`). Groups are
in the order of their first layers. A token takes less in some layers than in others: their blocks then hold more
tokens, if that makes all blocks equally large, else they are padded (vLLM's `kv_cache_utils.py`).
"""

from collections import Counter

from kvprefix.engines.groups import SPANS, Group
from kvprefix.files.paths import InputError
from kvprefix.models.attention import read_attention
from kvprefix.models.fields import MissingError, find_text, read_whole
from kvprefix.models.kinds import list_kinds
from kvprefix.models.layers import deal_layers

_SPAN_FIELDS = {
    "window": ("sliding_window", "attention_window_size", "sliding_window_size"), "chunk": ("attention_chunk_size",),
}  # fmt: skip


def group_layers(config, window=None, block_size=16):
    """Return the groups of a model.

    Parameters
    ----------
    config : dict
        What its `config.json` holds.
    window : int, optional
        Tokens of its windows or chunks, if the config does not tell.
    block_size : int
        Tokens, of the layers in which a token takes most.

    Returns
    -------
    tuple of Group

    Raises
    ------
    InputError
        Fields that are missing, or contradict each other or the window.

    Examples
    --------
    12 windows and 2 layers of full attention are groups of 2 layers: 6 and 1.

    >>> groups = group_layers({"num_hidden_layers": 14, "sliding_window": 512, "sliding_window_pattern": 7})
    >>> [group.label for group in groups]
    ['window 512', 'window 512', 'window 512', 'window 512', 'window 512', 'window 512', 'full']
    """
    text, _ = find_text(config)
    buckets = Counter()
    for place, kind in enumerate(list_kinds(text)):
        for part in ("full", "state") if kind == "both" else () if kind == "none" else (kind,):
            span = _find_span(text, part, window) if part in SPANS else None
            buckets[part, span, _measure(text, part, place)] += 1
    if not buckets:
        raise InputError("no layer keeps anything; expected a model with attention or recurrent layers")
    if window is not None and not any(kind in SPANS for kind, _, _ in buckets):
        raise InputError(f"has no windows or chunks; --window {window} has no meaning")
    largest, groups = max(size for _, _, size in buckets), []
    for (kind, span, size), n in deal_layers(buckets)[1].items():
        stretch = largest // size if size and largest % size == 0 else 1
        groups += [Group(kind, span, block_size * stretch)] * n
    return tuple(groups)


def _find_span(text, kind, window):
    """Return the tokens of a kind's window or chunk."""
    if window is None:
        return read_whole(text, *_SPAN_FIELDS[kind])
    span = read_whole(text, *_SPAN_FIELDS[kind], default=window)
    if span != window:
        raise InputError(f"has a {kind} of {span}, and --window is {window}; expected one of them, or the same")
    return span


def _measure(text, kind, place):
    """Return the bytes that a token takes in a layer, 0 for a state and if the config has not all fields for it."""
    if kind == "state":
        return 0
    try:
        return read_attention(text, kind, place).bytes_per_token("bfloat16", 1)
    except MissingError:
        return 0
