"""Run jobs between a notebook's messages, so that of fast moves only the last is computed."""

import asyncio

PAUSE_S = 0.06  # the next of several fast moves comes within this time


class Later:
    """The jobs of one panel, of which at most one waits: a new one takes its place.

    Without a running event loop there is nothing to wait for, and a job runs at once.
    """

    def __init__(self):
        self._waiting = None

    def run(self, job, pause_s=PAUSE_S):
        """Run a job after a pause, unless another one is given before."""
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            job()
        else:
            self._waiting = loop.call_later(pause_s, job)
