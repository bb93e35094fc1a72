"""Time of a prefill, and what follows from it: efficiency, bandwidth at which loading pays, gain of throughput.

A prompt of L tokens of which h are cached takes ``fixed_s + work(h, L) / (gpus x operations per second x mfu)``. The
work is 2 operations per parameter and computed token, and 2 d (L**2 - h**2) per layer with full attention, where d
numbers per token are multiplied. A window multiplies no more than its tokens, a chunk those since its beginning.
"""

import numpy as np

from kvprefix.files.checks import check_number, check_whole
from kvprefix.files.paths import InputError
from kvprefix.models.weights import count_parameters, weights_dtype


def prefill_work(cached, prompt, model, *, parameters=None):
    """Compute the floating-point operations of a prefill.

    Parameters
    ----------
    cached, prompt : int or (n,) array_like
        Tokens: cached ones, and all of the prompt.
    model : memory.Model
    parameters : float, optional
        Of a mixture of experts those that a token uses; by default what is known of the model.

    Returns
    -------
    float or (n,) ndarray of float64
        Operations.
    """
    cached, prompt = np.asarray(cached, float), np.asarray(prompt, float)
    if (cached < 0).any() or (cached > prompt).any():
        raise InputError("cached tokens must be 0 or more, and no more than the prompt's")
    pairs = sum(one.count * one.width * (_count_pairs(one, prompt) - _count_pairs(one, cached))
                for one in model.cache.layers)  # fmt: skip
    work = 2 * count_parameters(model, parameters, active=True) * (prompt - cached) + 4 * pairs
    return work if work.ndim else float(work)


def _count_pairs(one, tokens):
    """Return how many pairs of tokens attend to each other in the first `tokens`, n**2 / 2 in a full layer."""
    if one.kind == "window":
        inside = np.minimum(tokens, one.span)
        return inside**2 / 2 + one.span * (tokens - inside)
    if one.kind == "chunk":
        whole, rest = np.divmod(tokens, one.span)
        return (whole * one.span**2 + rest**2) / 2
    return tokens**2 / 2 if one.kind == "full" else tokens * 0


def prefill_seconds(cached, prompt, model, card, gpus=1, mfu=0.5, *, fixed_s=0.0, dtype=None, parameters=None):
    """Compute how long a prefill takes.

    Parameters
    ----------
    cached, prompt : int or (n,) array_like
        Tokens: cached ones, and all of the prompt.
    model : memory.Model
        Of `memory.load_model`, or of a `Memory`.
    card : cards.Card
    gpus : int
        Cards that share the model (tensor parallel).
    mfu : float
        Share of the cards' operations per second that is reached, above 0 and up to 1.
    fixed_s : float
        Seconds that every prefill takes besides.
    dtype : str, optional
        Number type of the weights, which decides the card's rate; by default the one the model is published in.
    parameters : float, optional
        As in `prefill_work`.

    Returns
    -------
    float or (n,) ndarray of float64
        Seconds.

    Examples
    --------
    Llama-3.1-8B on one H100: (2 * 8.03e9 * 1024 + 2 * 32 * 4096 * 1024**2) / (989e12 * 0.5).

    >>> import kvprefix as kp
    >>> round(prefill_seconds(0, 1024, kp.Memory("Llama-3.1-8B").model, kp.load_card("H100-80G")), 4)
    0.0338
    """
    rate = _full_rate(model, card, gpus, dtype)
    check_number(mfu, "mfu", "a share above 0, up to 1", least=1e-6, most=1)
    check_number(fixed_s, "fixed_s", "seconds, 0 or more")
    return fixed_s + prefill_work(cached, prompt, model, parameters=parameters) / (rate * mfu)


def implied_mfu(seconds, cached, prompt, model, card, gpus=1, *, fixed_s=0.0, dtype=None, parameters=None):
    """Return the share of the cards' operations per second that a measured prefill reached; see `prefill_seconds`."""
    check_number(seconds, "seconds", "more than fixed_s", least=fixed_s + 1e-9)
    work = prefill_work(cached, prompt, model, parameters=parameters)
    return work / (_full_rate(model, card, gpus, dtype) * (seconds - fixed_s))


def _full_rate(model, card, gpus, dtype):
    return check_whole(gpus, "gpus", "a whole number of cards, 1 or more") * card.rate(weights_dtype(model, dtype))


def break_even_bandwidth(tokens, model, card, gpus=1, mfu=0.5, **options):
    """Return the bandwidth, bytes per second, at which loading a cached prefix takes as long as computing it.

    The prefix's bytes (`KVCache.prefix_bytes`) over its prefill's seconds. A tier that is faster pays for this length.

    Examples
    --------
    >>> from kvprefix.models.cards import load_card
    >>> from kvprefix.models.memory import load_model
    >>> round(break_even_bandwidth(131072, load_model("Llama-3.1-8B"), load_card("H100-80G")) / 2**30, 2)
    1.2
    """
    tokens = check_whole(tokens, "tokens", "a whole number of tokens, 1 or more")
    return model.cache.prefix_bytes(tokens) / prefill_seconds(0, tokens, model, card, gpus, mfu, **options)


def throughput_gain(token_hit_rate, prefill_share):
    """Return by how much throughput grows: 1 / (1 - f x hit rate), f being the share of GPU time that prefill takes.

    >>> throughput_gain(0.5, 0.5), round(throughput_gain(0.9459, 0.06), 2)
    (1.3333333333333333, 1.06)
    """
    check_number(token_hit_rate, "token hit rate", "a share, 0 to 1", most=1)
    check_number(prefill_share, "share of prefill in GPU time", "a share, 0 to 1", most=1)
    left = 1 - prefill_share * token_hit_rate
    return 1 / left if left else float("inf")


def implied_prefill_share(gain, token_hit_rate):
    """Return the share of prefill in GPU time that a measured gain of throughput implies.

    >>> round(implied_prefill_share(1.06, 0.9459), 3)
    0.06
    """
    check_number(gain, "gain", "a ratio of throughputs, 1 or more", least=1)
    check_number(token_hit_rate, "token hit rate", "a share above 0, up to 1", least=1e-9, most=1)
    return (1 - 1 / gain) / token_hit_rate
