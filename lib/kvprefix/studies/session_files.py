"""Account a trace of sessions without a bound, and write the data files of its report: statistics, requests, blocks.

They have the names and the keys of a workload's multi-turn files (`studies.sharing`), so that whoever reads those reads
these: the requests are all of the trace, a conversation is a session. Replies and a template's tokens are not known.
"""

import hashlib
import json
from typing import NamedTuple

import numpy as np
import pandas as pd

from kvprefix.blocks.reuse import reuse_of
from kvprefix.blocks.runs import find_block_runs, find_gap_runs
from kvprefix.blocks.sharing import Sharing
from kvprefix.files.paths import write_bytes
from kvprefix.stats.metrics import Accounting, list_versions, summarize
from kvprefix.stats.resampling import resample_mode
from kvprefix.studies.sharing_tables import write_blocks, write_requests

MODE = "multi_turn"


class _Requests(NamedTuple):
    """What `resample_mode` reads of a trace."""

    requests: pd.DataFrame


def write_sessions(experiment, folder):
    """Write `multi_turn_stats.json`, `multi_turn_request_metrics.csv` and `multi_turn_block_metrics.csv`.

    Parameters
    ----------
    experiment : studies.experiment.SessionExperiment
    folder : pathlib.Path

    Returns
    -------
    dict
        The statistics.
    """
    accesses = experiment.draw(experiment.parameters.block_size)
    sharing, cached = share_accesses(accesses)
    requests = tabulate_sessions(experiment.sessions, accesses, sharing, cached)
    accountings = {"": Accounting(accesses.prompt_tokens, cached)}
    resampled = resample_mode(_Requests(requests), sharing, accountings)
    stats = _describe(experiment, requests, sharing) | {"intervals": resampled.intervals()}
    write_requests(requests, folder / f"{MODE}_request_metrics.csv")
    write_blocks(sharing, folder / f"{MODE}_block_metrics.csv")
    write_bytes(folder / f"{MODE}_stats.json", json.dumps(stats, indent=2, allow_nan=False) + "\n")
    return stats


def share_accesses(accesses):
    """Return the Sharing of a PrefixTrace, and the cached tokens of each request, (n_requests,) int64.

    A hit block is one that saves tokens: the last block of a prompt that it ends does not.
    """
    reuse = reuse_of(accesses.ids, accesses.offsets)
    whole = (reuse.reused == reuse.blocks) & (reuse.blocks > 0) & (accesses.last_weight == 0)
    runs = find_block_runs(reuse), find_gap_runs(reuse)
    sharing = Sharing(accesses, accesses.block_size, reuse, accesses.prompt_tokens, reuse.reused - whole, *runs)
    return sharing, accesses.hit_tokens(reuse.reused)


def tabulate_sessions(sessions, accesses, sharing, cached):
    """Return the per-request table in arrival order, with the columns of `stats.metrics.tabulate_requests`.

    `conversation_index` is the place of the session in the data, `conversation_id` a name that is made of its content,
    and `turn` the place of the request in its session, sub-agents' included.
    """
    names = np.array(name_sessions(sessions), object)
    place = pd.Series(accesses.conversation).groupby(accesses.conversation).cumcount()
    return pd.DataFrame({
        "request_id": [f"s{one}r{k}" for one, k in zip(accesses.conversation.tolist(), place.tolist(), strict=True)],
        "conversation_index": accesses.conversation, "conversation_id": names[accesses.conversation], "turn": place,
        "arrival_s": accesses.arrival_s, "prompt_tokens": accesses.prompt_tokens,
        "output_tokens": accesses.output_tokens, "prompt_blocks": sharing.prompt_blocks,
        "hit_blocks": sharing.hit_blocks, "cached_tokens": cached,
        "sharing_fraction": cached / np.maximum(accesses.prompt_tokens, 1),
    })  # fmt: skip


def name_sessions(sessions):
    """Return a name for each session that is made of its lengths, times and blocks: equal ones are told by a number."""
    one, names, seen = sessions.accesses, [], {}
    first = np.searchsorted(one.conversation, np.arange(sessions.n_sessions + 1))
    is_local = one.info.get("is_local", False)
    for start, stop in zip(first[:-1].tolist(), first[1:].tolist(), strict=True):
        ids = one.ids[one.offsets[start] : one.offsets[stop]].astype(np.int64)
        ids = ids - ids.min() if is_local and len(ids) else ids
        rest = one.prompt_tokens[start:stop], one.output_tokens[start:stop], one.arrival_s[start:stop].round(3)
        parts = (np.diff(one.offsets[start : stop + 1]), ids, *rest)
        name = hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest()[:12]
        seen[name] = seen.get(name, 0) + 1
        names.append(name if seen[name] == 1 else f"{name}-{seen[name]}")
    return names


def _describe(experiment, requests, sharing):
    """Return the statistics without the intervals; None for what is not known of a trace of block ids."""
    tokens, cached = requests["prompt_tokens"].sum(), requests["cached_tokens"].sum()
    dataset = {"name": experiment.dataset["path"].rstrip("/").rsplit("/", 1)[-1]}
    dataset |= {name: experiment.dataset[name] for name in ("conversations", "sha256")}
    unknown = {"token_hit_rate": None, "sharing_fraction": summarize([])}
    parameters = experiment.parameters.describe_requests() | {
        "data_sha256": experiment.dataset["sha256"], "tokenizer_sha256": None, "tokenizer_has_template": None,
        "tokenizer_encoder": None, "versions": list_versions(),
    }  # fmt: skip
    totals = {
        name: {"total": int(requests[name].sum()), **summarize(requests[name])}
        for name in ("prompt_tokens", "output_tokens")
    }
    return {
        "mode": MODE, "parameters": parameters, "dataset": dataset,
        "requests": len(requests), "duration_s": float(requests["arrival_s"].max() if len(requests) else 0), **totals,
        "sharing_fraction": summarize(requests["sharing_fraction"]),
        "block_hit_count": summarize(sharing.block_runs.accesses, lengths=sharing.block_runs.lengths),
        "reuse_gap_s": summarize(sharing.run_gap_s, lengths=sharing.gap_runs.lengths),
        "token_hit_rate": float(cached / tokens) if tokens else None,
        "block_reuse_rate": sharing.block_reuse_rate, "blocks_reused_fraction": sharing.blocks_reused_fraction,
        "blocks": {"accesses": sharing.n_accesses, "distinct": sharing.n_distinct}, "with_generated_tokens": unknown,
        "without_template_tokens": {"prompt_tokens": None, "block_reuse_rate": None, **unknown},
    }  # fmt: skip
