"""Progress bars with rate and time left, for every step that can take more than a few seconds.

They appear on a terminal only, after one second, and vanish at the end: no log and no executed notebook holds one.
"""

from tqdm.auto import tqdm

from kvprefix.files.escape import plain_text


def show_progress(total, what, unit, *, shown=True):
    """Return a progress bar, a context manager; its `update(n)` counts n more.

    Parameters
    ----------
    total : int
    what : str
        The work: "joining parts".
    unit : str
        What is counted; "B" for bytes.
    shown : bool
        False shows no bar.
    """
    return tqdm(
        total=total, desc=plain_text(what), unit=unit, unit_scale=True, delay=1, leave=False,
        disable=None if shown else True,
    )  # fmt: skip
