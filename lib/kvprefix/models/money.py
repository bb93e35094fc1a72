"""Money: what cards cost, what prefills that are not computed save, and when a GiB of cache pays."""

import numpy as np

from kvprefix.files.checks import check_number, check_whole
from kvprefix.files.paths import InputError
from kvprefix.models.cards import check_price


def price_of(card, hours, gpus=1):
    """Return what cards cost for some hours.

    Parameters
    ----------
    card : cards.Card
    hours : float
    gpus : int
        How many cards.

    Returns
    -------
    float
        Dollars.

    Raises
    ------
    InputError
        A card without a price, a negative price or time.

    Examples
    --------
    >>> from kvprefix.models.cards import load_card
    >>> price_of(load_card("H100-80G", usd_per_hour=2.5), 24, gpus=8)
    480.0
    """
    gpus = check_whole(gpus, "gpus", "a whole number of cards, 1 or more")
    return price_per_hour(card) * check_number(hours, "hours", "a number, 0 or more") * gpus


def price_per_hour(card):
    """Return the dollars of one card and hour; raise InputError if none is known."""
    if card.usd_per_hour is None:
        raise InputError(f"no price of {card.name} is known; expected its dollars per hour")
    return check_price(card.usd_per_hour)


def price_of_seconds(gpu_s, card):
    """Return what GPU-seconds of a card cost, dollars: gpu_s x price / 3600."""
    return check_number(gpu_s, "GPU-seconds", "a number, 0 or more") * price_per_hour(card) / 3600


def marginal_seconds(gib, saved_s, hours):
    """Return the GPU-seconds that each further GiB of cache saves per hour.

    Parameters
    ----------
    gib : (n,) array_like
        Sizes of the cache, rising, above 0.
    saved_s : (n,) array_like
        GPU-seconds of prefill that each size saves.
    hours : float
        That the traffic lasts.

    Returns
    -------
    (n,) ndarray of float64
        GPU-seconds per GiB and hour, from the size before (of the first one: from no cache).

    Examples
    --------
    >>> marginal_seconds([10, 30], [200, 400], hours=2).tolist()
    [10.0, 5.0]
    """
    for values, name in ((gib, "size of a cache"), (saved_s, "seconds that a cache saves")):
        for value in values:
            check_number(value, name, "a number, 0 or more")
    gib, saved_s = np.asarray(gib, float), np.asarray(saved_s, float)
    check_number(hours, "hours", "a number above 0", least=1e-12)
    if len(gib) != len(saved_s) or (np.diff(gib, prepend=0.0) <= 0).any():
        raise InputError("sizes of a cache must rise from above 0, with the seconds that each saves")
    return np.diff(saved_s, prepend=0.0) / (np.diff(gib, prepend=0.0) * hours)


def value_of_gib(marginal_s, card):
    """Return the dollars that a further GiB is worth per hour: marginal GPU-seconds x price / 3600.

    It pays while this is above what the GiB costs per hour.

    >>> from kvprefix.models.cards import load_card
    >>> round(float(value_of_gib(1.0, load_card("H100-80G", usd_per_hour=2.5))), 6)
    0.000694
    """
    return np.asarray(marginal_s, float) * price_per_hour(card) / 3600


def count_paying(gib, saved_s, hours, card, usd_per_gib_hour):
    """Return the largest of these sizes of a cache whose last GiB still pays, 0.0 if none does.

    Parameters
    ----------
    gib, saved_s, hours
        As in `marginal_seconds`.
    card : cards.Card
    usd_per_gib_hour : float
        Price of a GiB of this memory for an hour.

    Notes
    -----
    Gains need not fall with size (a working set may fit all at once), so the last size that pays counts.

    Examples
    --------
    At 3.6 dollars per GPU-hour a second is worth 0.001: 10 seconds 0.01, 5 seconds 0.005.

    >>> from kvprefix.models.cards import load_card
    >>> count_paying([10, 30], [200, 400], 2, load_card("H100-80G", usd_per_hour=3.6), 0.006)
    10.0
    """
    check_price(usd_per_gib_hour, "price of a GiB-hour")
    pays = np.flatnonzero(value_of_gib(marginal_seconds(gib, saved_s, hours), card) > usd_per_gib_hour)
    return float(np.asarray(gib, float)[pays[-1]]) if len(pays) else 0.0
