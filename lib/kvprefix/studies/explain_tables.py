"""Tables of origins and causes: by capacity, by turn, with intervals, and as files with a row per request."""

import numpy as np
import pandas as pd

from kvprefix.files.paths import InputError, atomic_path, check_output_file
from kvprefix.stats.intervals import bootstrap_rates, interval
from kvprefix.studies.sharing_tables import write_requests

TURNS = (0, 1, 2, 4, 8, 16, 32)  # at which a class of turns begins


def tabulate_parts(found, by="turn"):
    """Return the parts of all requests, of each class of turns, or of each of several capacities, as rows.

    Parameters
    ----------
    found : Parts or list of Parts
    by : {"turn", "capacity"}
        `turn`: a row per class of turns (TURNS) and part, of one Parts; `capacity`: a row per capacity and part.

    Returns
    -------
    pandas.DataFrame
        `capacity_blocks` (None without a bound) or `from_turn` and `requests`; `part`, `tokens`, `share` of the prompt
        tokens.
    """
    rows = []
    for one in found if isinstance(found, list) else [found]:
        if by == "capacity":
            rows += _list_rows({"capacity_blocks": one.capacity}, one, np.ones(len(one), bool))
            continue
        at = np.searchsorted(TURNS, one.requests["turn"], side="right") - 1
        for k, turn in enumerate(TURNS):
            if (at == k).any():
                rows += _list_rows({"from_turn": turn, "requests": int((at == k).sum())}, one, at == k)
    return pd.DataFrame(rows)


def _list_rows(place, found, some):
    prompt = max(int(found.prompt_tokens[some].sum()), 1)
    sums = zip(found.names, found.tokens[some].sum(axis=0).tolist(), strict=True)
    return [{**place, "part": name, "tokens": n, "share": n / prompt} for name, n in sums]


def find_intervals(found):
    """Return the 95 % interval of each part's share of the prompt tokens, over resampled conversations.

    Parameters
    ----------
    found : Parts

    Returns
    -------
    dict of str to (float, float)
        By part: low and high.
    """
    draws = bootstrap_rates(found.tokens, found.prompt_tokens, found.requests["conversation_index"])
    low, high = interval(draws)
    ends = zip(low.tolist(), high.tolist(), strict=True)
    return dict(zip(found.names, ends, strict=True))


def check_rows(path):
    """Raise InputError unless a file of rows can be written: it is named .csv or .parquet."""
    if path is not None and path.suffix not in (".csv", ".parquet"):
        raise InputError(f"{path}: is no name of a file of rows; expected one that ends with .csv or .parquet")
    if path is not None:
        check_output_file(path)


def write_rows(found, path):
    """Write a row per request, and per capacity if there are several results.

    Parameters
    ----------
    found : list of Parts
    path : pathlib.Path
        CSV or Parquet, by its name.
    """
    frames = [one.to_frame() for one in found]
    if len(frames) > 1:
        for frame, one in zip(frames, found, strict=True):
            capacity = "unbounded" if one.capacity is None else str(one.capacity)
            frame.insert(frame.columns.get_loc("prompt_tokens"), "capacity_blocks", capacity)
    frame = pd.concat(frames, ignore_index=True)
    if path.suffix == ".csv":
        write_requests(frame, path)
        return
    with atomic_path(path) as temporary:
        frame.to_parquet(temporary, index=False)


def format_parts(found):
    """Return a Markdown table of the parts, a column per result, with their shares of the prompt tokens."""
    from tabulate import tabulate  # takes a tenth of a second

    heads = ["all" if one.capacity is None else f"{one.capacity:,} blocks" for one in found]
    heads = ["unbounded" if len(found) > 1 and head == "all" else head for head in heads]
    whole = max(int(found[0].prompt_tokens.sum()), 1)
    rows = []
    for name in found[0].names:
        tokens = [one.totals()[name] for one in found]
        rows.append([name, *(cell for n in tokens for cell in (f"{n:,}", f"{100 * n / whole:.2f} %"))])
    rows.append(["prompt tokens", *([f"{whole:,}", "100.00 %"] * len(found))])
    headers = [found[0].sort, *(cell for head in heads for cell in (f"tokens, {head}", "share"))]
    align = ["left", *["right"] * (len(headers) - 1)]
    return tabulate(rows, headers, "pipe", disable_numparse=True, colalign=align)


def add_intervals(found):
    """Return the parts by capacity, see `tabulate_parts`, with `low` and `high` of each share: see `find_intervals`."""
    frame = tabulate_parts(found, by="capacity")
    ends = [end for one in found for end in find_intervals(one).values()]
    return frame.assign(low=[low for low, _ in ends], high=[high for _, high in ends])
