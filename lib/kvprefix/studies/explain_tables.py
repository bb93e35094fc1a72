"""Tables of origins and causes: by capacity, by turn, with intervals, and as files with a row per request."""

import json

import numpy as np
import pandas as pd

from kvprefix.explain.parts import Origins
from kvprefix.files.paths import InputError, atomic_path, check_output_file, write_bytes
from kvprefix.stats.intervals import bootstrap_rates, interval
from kvprefix.studies.sharing_tables import write_requests

TURNS = (0, 1, 2, 4, 8, 16, 32)  # at which a class of turns begins


def tabulate_parts(found, *, with_intervals=False):
    """Return a row per result and part.

    Parameters
    ----------
    found : list of Parts
        At several capacities, say.
    with_intervals : bool
        Find the 95 % intervals of the shares over resampled conversations.

    Returns
    -------
    pandas.DataFrame
        `capacity_blocks` (0: nothing is evicted), `part`, `tokens`, `token` (the share of the prompt tokens), `low` and
        `high` (NaN without intervals).
    """
    rows = []
    for one in found:
        ends = find_intervals(one) if with_intervals else {}
        for row in _list_rows({"capacity_blocks": one.capacity or 0}, one, np.ones(len(one), bool)):
            low, high = ends.get(row["part"], (np.nan, np.nan))
            rows.append({**row, "low": low, "high": high})
    return pd.DataFrame(rows)


def tabulate_turns(found):
    """Return a row per class of turns (TURNS) and part of one result.

    Parameters
    ----------
    found : Parts

    Returns
    -------
    pandas.DataFrame
        `from_turn` (0-based), `requests`, `part`, `tokens`, `token` (the share of these requests' prompt tokens).
    """
    rows, at = [], np.searchsorted(TURNS, found.requests["turn"], side="right") - 1
    for k, turn in enumerate(TURNS):
        if (at == k).any():
            rows += _list_rows({"from_turn": turn, "requests": int((at == k).sum())}, found, at == k)
    return pd.DataFrame(rows)


def _list_rows(place, found, some):
    prompt = max(int(found.prompt_tokens[some].sum()), 1)
    sums = zip(found.names, found.tokens[some].sum(axis=0).tolist(), strict=True)
    return [{**place, "part": name, "tokens": n, "token": n / prompt} for name, n in sums]


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


def list_misses(found, notes=(), places=None):
    """Return the causes at several capacities as JSON values.

    Parameters
    ----------
    found : list of Misses
    notes : sequence of str
        On the data, beside those of the results.
    places : dict, optional
        The number of replicas and their router, if there are several.
    """
    notes = list(dict.fromkeys([*notes, *(note for one in found for note in one.notes)]))
    return {
        "requests": len(found[0]), "prompt_tokens": int(found[0].prompt_tokens.sum()), "policy": found[0].policy,
        **(places or {}),
        "capacities": {
            "unbounded" if one.capacity is None else str(one.capacity): {"tokens": one.totals()} for one in found
        },
        **({"notes": notes} if notes else {}),
    }  # fmt: skip


def write_provenance(found, folder):
    """Write `provenance.json`, as the command prints it, and `provenance_requests.csv`, a row per request."""
    write_json(found.as_dict(), folder / "provenance.json")
    write_rows([found], folder / "provenance_requests.csv")


def write_misses(found, notes, folder):
    """Write `misses.json`, as the command prints it, and `misses_requests.csv`, a row per capacity and request."""
    write_json(list_misses(found, notes), folder / "misses.json")
    write_rows(found, folder / "misses_requests.csv")


def write_json(values, path):
    """Write JSON values to a file."""
    write_bytes(path, json.dumps(values, indent=1, allow_nan=False) + "\n")


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
    write_frame(pd.concat(frames, ignore_index=True), path)


def write_frame(frame, path):
    """Write rows to a file whose name ends with .csv or .parquet."""
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
    table = tabulate(rows, headers, "pipe", disable_numparse=True, colalign=align)
    return "\n".join([table, *_say_axes(found[0])])


def _say_axes(found):
    """Yield what the order of the parts hides: cached tokens by holders, and by writers."""
    facts = found.as_dict() if isinstance(found, Origins) else {}
    for axis, said in (("holders_tokens", "whose earlier requests had them"), ("writers_tokens", "who wrote them")):
        if axis in facts:
            yield f"cached tokens by {said}: " + ", ".join(f"{n:,} {name}" for name, n in facts[axis].items())
