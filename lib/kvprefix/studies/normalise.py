"""Normalise the curves of several traces, so that they can be seen in one frame. Figures are not made here."""

import pandas as pd

from kvprefix.cache.curve import lru_curve


def normalise_curves(traces, replays):
    """Tabulate hit rates over capacity, each trace by its own maximum and its own blocks.

    Parameters
    ----------
    traces : dict of str to PrefixTrace
        By label; LRU's curve is measured.
    replays : dict of str to pandas.DataFrame
        By label, of `studies.engines.study_engine_curve`; the first seed counts.

    Returns
    -------
    pandas.DataFrame
        `trace`, `capacity_blocks`, `distinct_blocks` (of the trace), `token` and `maximum` (token hit rates, at the
        capacity and without a bound), `share_of_blocks` and `share_of_maximum` (NaN if the maximum is 0).

    Notes
    -----
    A capacity as a share of the distinct blocks, the trace's footprint: Yang et al., FIFO queues are all you need for
    cache eviction, SOSP 2023.
    """
    frames = []
    for label, accesses in traces.items():
        curve = lru_curve(accesses)
        frame = curve.to_frame().assign(distinct_blocks=accesses.n_distinct, maximum=curve.token[-1])
        frames.append(frame.assign(trace=label))
    for label, replay in replays.items():
        first = replay[replay["seed"] == replay["seed"].iloc[0]]
        frames.append(first.rename(columns={"unbounded": "maximum"}).assign(trace=label))
    columns = ["trace", "capacity_blocks", "distinct_blocks", "token", "maximum"]
    table = pd.concat(frames, ignore_index=True)[columns]
    return table.assign(
        share_of_blocks=table["capacity_blocks"] / table["distinct_blocks"].clip(lower=1),
        share_of_maximum=table["token"] / table["maximum"].where(table["maximum"] > 0),
    )
