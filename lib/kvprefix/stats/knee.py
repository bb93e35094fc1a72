"""Find the knee of a curve: the point from which on more costs more than it brings."""

import numpy as np


def find_knee(capacities, rates):
    """Find the knee of a rising curve on a logarithmic axis: the point farthest above the line between its ends.

    Up to the knee a doubling brings more than the mean of the whole range, from it on less. So the knee belongs to a
    range of capacities as well as to a curve.

    Parameters
    ----------
    capacities : (n,) array_like
        Rising, above 0.
    rates : (n,) array_like

    Returns
    -------
    int or None
        The knee's place; None if the curve does not rise, or nowhere lies above the line (by more than rounding).

    Notes
    -----
    Kneedle for a whole, smooth curve: both axes scaled to [0, 1], the greatest difference y - x; of equal ones the
    first. Satopaa et al., Finding a "Kneedle" in a Haystack, ICDCS Workshops, 2011.

    Examples
    --------
    On a logarithmic axis the line between the ends rises by 1/4 from point to point; the third is 0.4 above it.

    >>> find_knee([1, 10, 100, 1000, 10_000], [0.0, 0.3, 0.9, 0.95, 1.0])
    2
    >>> find_knee([1, 10, 100], [0.0, 0.1, 1.0])
    """
    x, y = np.log(np.asarray(capacities, float)), np.asarray(rates, float)
    if len(x) < 3 or y[-1] <= y[0]:
        return None
    above = (y - y[0]) / (y[-1] - y[0]) - (x - x[0]) / (x[-1] - x[0])
    knee = int(above.argmax())
    return knee if above[knee] > 1e-9 else None


def count_gains(capacities, rates, knee):
    """Return what a doubling brings before and after the knee, means in the rates' unit.

    >>> count_gains([1, 4, 16], [0.0, 0.5, 0.75], 1)
    (0.25, 0.125)
    """
    x, y = np.log2(np.asarray(capacities, float)), np.asarray(rates, float)
    return float((y[knee] - y[0]) / (x[knee] - x[0])), float((y[-1] - y[knee]) / (x[-1] - x[knee]))
