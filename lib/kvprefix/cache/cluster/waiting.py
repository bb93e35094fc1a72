"""How long prompts wait for a replica and are computed: a queue of one server per replica, first come, first served."""

from typing import NamedTuple

import numpy as np
from numba import njit


class Prefill(NamedTuple):
    """Seconds that a replica takes to compute a prompt: some, so many per token, so many per pair of tokens.

    ``fixed_s + token_s * (L - h) + square_s * (L**2 - h**2)`` for L prompt tokens of which h are cached.
    """

    fixed_s: float
    token_s: float
    square_s: float


def _make_prefill(parameters, layers, width, flops, share, fixed_s):
    """Return the Prefill of a model (its parameters, layers and width) on a card (FLOPs a second, share in use)."""
    return Prefill(fixed_s, 2 * parameters / (flops * share), 2 * layers * width / (flops * share))


# Llama-3.1-8B on one H100: 989 TFLOPS in bfloat16, half of them in use, and 0.02 s per step.
LLAMA_8B_ON_H100 = _make_prefill(8.03e9, 32, 4096, 989e12, 0.5, 0.02)


def time_prefill(prefill, prompt_tokens, hit_tokens):
    """Return the seconds that prompts are computed, (n_requests,) float64."""
    prompt, hit = np.asarray(prompt_tokens, float), np.asarray(hit_tokens, float)
    return prefill.fixed_s + prefill.token_s * (prompt - hit) + prefill.square_s * (prompt**2 - hit**2)


def wait_in_line(arrival_s, service_s, places, replicas):
    """Return how long each request waits until its replica begins with it, in seconds: Lindley's recursion.

    Parameters
    ----------
    arrival_s, service_s : (n_requests,) ndarrays of float64
        In arrival order.
    places : (n_requests,) ndarray of int64
        The replica of each request.
    replicas : int

    Examples
    --------
    >>> wait_in_line(np.array([0.0, 1.0, 1.0]), np.array([3.0, 1.0, 1.0]), np.array([0, 0, 1]), 2)
    array([0., 2., 0.])
    """
    return _wait(arrival_s, service_s, places, replicas)


@njit(cache=True, nogil=True)
def _wait(arrival_s, service_s, places, replicas):
    free_s, wait_s = np.full(replicas, -np.inf), np.empty(len(arrival_s))
    for i in range(len(arrival_s)):
        begin_s = max(free_s[places[i]], arrival_s[i])
        wait_s[i] = begin_s - arrival_s[i]
        free_s[places[i]] = begin_s + service_s[i]
    return wait_s
