"""Progress bars with rate and time left, for every step that can take more than a few seconds.

They show on a terminal only, after a second, and leave nothing behind: a log or an executed notebook holds none.
"""

from tqdm.auto import tqdm

from kvprefix.files.escape import plain_text


def show_progress(total, what, unit, *, shown=True):
    """Return a bar to be used as a context manager; its `update(n)` counts.

    Parameters
    ----------
    total : int
    what : str
        What is being done: "joining parts".
    unit : str
        Of what is counted; bytes are "B".
    shown : bool
        Whether it shows at all.
    """
    return tqdm(
        total=total, desc=plain_text(what), unit=unit, unit_scale=True, delay=1, leave=False,
        disable=None if shown else True,
    )  # fmt: skip
