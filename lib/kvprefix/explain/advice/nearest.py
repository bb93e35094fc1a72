"""For each request, the earlier one whose prompt begins with most of its tokens."""

from typing import NamedTuple

import numpy as np
from numba import njit


class Earlier(NamedTuple):
    """The nearest earlier prompt of each request, the latest of several; (n,) ndarrays of int64.

    Attributes
    ----------
    requests : ndarray
        Its position; -1 if none begins alike.
    tokens : ndarray
        Leading tokens that both have.
    """

    requests: np.ndarray
    tokens: np.ndarray


def find_earlier(walks):
    """Find the Earlier of a trace's requests.

    Parameters
    ----------
    walks : Walks

    Examples
    --------
    >>> from kvprefix.explain.walks import make_walks
    >>> from kvprefix.traces.trace import make_trace_of
    >>> find_earlier(make_walks(make_trace_of([[1, 2, 3], [1, 2], [1, 2, 4], [5]])))
    Earlier(requests=array([-1,  0,  1, -1]), tokens=array([0, 2, 2, 0]))
    """
    return Earlier(*_find_earlier(walks))


@njit(cache=True, nogil=True)
def _find_earlier(walks):
    n, last = len(walks.prompt_stop), np.full(walks.n_apart, -1)
    requests, tokens = np.full(n, -1), np.zeros(n, np.int64)
    for i in range(n):
        for k in range(walks.offsets[i], walks.prompt_stop[i]):
            if last[walks.apart[k]] < 0:
                break
            requests[i], tokens[i] = last[walks.apart[k]], walks.ends[k]
        last[walks.apart[walks.offsets[i] : walks.prompt_stop[i]]] = i
    return requests, tokens
