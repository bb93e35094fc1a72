"""The central type: a trace of requests with the tokens of their prompts and outputs.

`workload` makes a trace, `parquet` reads one, and everything after it (blocks, sharing, replay) takes one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from kvprefix.contents import load
from kvprefix.files.paths import InputError
from kvprefix.files.shown import Shown
from kvprefix.tokens.arrays import Tokens, make_tokens

if TYPE_CHECKING:
    import pandas as pd

REQUEST_COLUMNS = [
    "request_id", "conversation_index", "conversation_id", "turn", "arrival_s", "prompt_tokens", "output_tokens",
    "messages",
]  # fmt: skip
LOG_COLUMNS = [  # of a log: NaN where it does not say
    "start_s",  # when the request was sent, seconds since 1970
    "ttft_s", "service_s",  # how long its first token and its whole answer took
    "after_tool",  # whether it brings a tool's result
    "usage_prompt", "usage_cached", "usage_output",  # tokens, as the provider counted
]  # fmt: skip


class _Frame:
    """The field `requests`: given as a frame or as columns, made a frame at its first use.

    A program that only replays token ids makes no frame and needs no pandas.
    """

    def __get__(self, trace, owner=None):
        if trace is None:
            raise AttributeError("a trace has no requests unless they are given")
        given = vars(trace)["_given"]
        if isinstance(given, dict):
            import pandas as pd

            given = vars(trace)["_given"] = pd.DataFrame(given)
        return given

    def __set__(self, trace, given):
        vars(trace)["_given"] = given


@dataclass(frozen=True, repr=False)
class Trace(Shown):
    """Requests in arrival order, and their tokens.

    Attributes
    ----------
    requests : pandas.DataFrame
        Given as one, or as a dict of columns. REQUEST_COLUMNS: `request_id` (str), `conversation_index` (0-based, of
        usable conversations), `conversation_id` (str), `turn` (0-based), `arrival_s` (seconds from the start),
        `prompt_tokens`, `output_tokens`, and `messages` (the number of the conversation's messages in the prompt). Of
        a log with times also LOG_COLUMNS.
    rows : (n,) ndarray of int64
        The row of each request in `tokens`.
    tokens : Tokens or MessageTokens
        May hold more rows than the trace uses: both modes of a workload share one.
    info : dict
        What made the trace: JSON values.
    contexts : (n,) ndarray of int64, optional
        Only requests of equal context share blocks: 0, 1, ... for each cache salt and LoRA adapter. None: all share.
    """

    requests: pd.DataFrame = _Frame()
    rows: np.ndarray
    tokens: Tokens
    info: dict
    contexts: np.ndarray | None = None

    def __len__(self):
        return len(self.rows)

    def column(self, name):
        """Return one of the columns of `requests` as an ndarray; no frame is made."""
        return np.asarray(vars(self)["_given"][name])

    def has(self, name):
        """Say whether `requests` has a column."""
        return name in vars(self)["_given"]

    @property
    def arrival_s(self):
        """Arrival times in seconds, ascending, (n,) float64."""
        return self.column("arrival_s")

    @property
    def request_ids(self):
        """The requests' ids as given, a list."""
        return list(vars(self)["_given"]["request_id"])

    def prompt(self, i):
        """Return the token ids of the i-th request's prompt, int32."""
        return self.tokens.prompt(self.rows[i])

    def generated(self, i):
        """Return the token ids of the i-th request's output, int32."""
        return self.tokens.generated(self.rows[i])

    def blocks(self, block_size):
        """Return the trace's full prompt blocks as a `PrefixTrace`, which a cache replays.

        Parameters
        ----------
        block_size : int
            Tokens per block.
        """
        return load("make_prefix_trace")(self, block_size)

    def describe(self):
        """Return the sizes of the trace in words."""
        prompts = self.tokens.prompt_lengths()[self.rows]
        mode = self.info.get("mode", "").replace("_", "-")
        span = f"{self.arrival_s[-1] - self.arrival_s[0]:,.1f} s" if len(self) else "no time"
        return {
            "what": f"Trace of {len(self):,} requests with tokens{mode and f' ({mode})'}",
            "prompt tokens": f"{prompts.sum():,}",
            "arrivals": f"within {span}",
            "conversations": f"{len(np.unique(self.requests['conversation_index'])):,}",
        }

    def without_template(self):
        """Return the trace without the chat template's tokens: the messages' tokens alone."""
        tokens = self.tokens.without_template
        requests = self.requests.assign(prompt_tokens=tokens.prompt_lengths()[self.rows])
        return replace(self, requests=requests, tokens=tokens, info={**self.info, "template_tokens": False})


def make_trace_of(prompts, arrival_s=None, outputs=None, *, cache_salts=None, lora_names=None):
    """Make a trace from lists of token ids; each prompt is a conversation of its own.

    Parameters
    ----------
    prompts, outputs : sequence of sequence of int
        One prompt and one output per request, 0 <= id < 2**31; outputs are empty if not given.
    arrival_s : sequence of float, optional
        Seconds; 0, 1, 2, ... if not given.
    cache_salts, lora_names : sequence of str or None, optional
        One per request; None and "" stand for no salt and no adapter.

    Raises
    ------
    InputError
        A token id that is no whole number from 0 to 2**31 - 1, or lists of different lengths.

    Examples
    --------
    >>> len(make_trace_of([[1, 2], [1, 2, 3]]))
    2
    """
    n = len(prompts)
    columns = {"outputs": outputs, "arrival_s": arrival_s, "cache_salts": cache_salts, "lora_names": lora_names}
    for name, column in columns.items():
        if column is not None and len(column) != n:
            raise InputError(f"{name} has {len(column)} entries for {n} prompts; expected one per prompt")
    tokens = make_tokens(prompts, [()] * n if outputs is None else outputs)
    return make_flat_trace(tokens, arrival_s=arrival_s, contexts=number_contexts(cache_salts, lora_names))


def make_flat_trace(tokens, *, request_ids=None, arrival_s=None, contexts=None):
    """Make a trace of all rows of `tokens`, a conversation each; ids and times default to those of `make_trace_of`."""
    n = len(tokens.shared)
    requests = {
        "request_id": [f"c{i}t0" for i in range(n)] if request_ids is None else request_ids,
        "conversation_index": np.arange(n),
        "conversation_id": [str(i) for i in range(n)],
        "turn": np.zeros(n, np.int64),
        "arrival_s": np.arange(n, dtype=float) if arrival_s is None else np.asarray(arrival_s, float),
        "prompt_tokens": tokens.prompt_lengths(),
        "output_tokens": np.diff(tokens.output_offsets),
        "messages": np.ones(n, np.int64),
    }  # fmt: skip
    return Trace(requests, np.arange(n), tokens, {}, contexts)


def number_contexts(*columns):
    """Number the distinct combinations of the requests' salts and adapters, as first seen; None if all are equal.

    >>> number_contexts(["x", None, "x", ""], None)
    array([0, 1, 0, 1])
    """
    given = [[value or None for value in column] for column in columns if column is not None]
    codes = {}
    contexts = np.array([codes.setdefault(key, len(codes)) for key in zip(*given, strict=True)], np.int64)
    return contexts if len(codes) > 1 else None
