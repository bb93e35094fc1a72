"""Which message each token of the prompts of calls is of, and what these messages say."""

import numpy as np
import pyarrow as pa

from kvprefix.tokens.marks import BESIDE, SYSTEM, TEMPLATE, UNKNOWN

WRITTEN_FIELDS = (
    pa.field("is_marked", pa.bool_()),  # whether it is known which message each token is of
    pa.field("run_stops", pa.list_(pa.int32())),  # where each run of tokens of one message ends in the prompt; own ones
    pa.field("run_messages", pa.list_(pa.int32())),  # its message, from 1 on; 0 beside texts, else -1
    pa.field("run_writers", pa.list_(pa.int8())),  # of `marks.WRITERS`
)
SAID_FIELDS = (
    pa.field("said_before", pa.int32()),  # leading messages as the row before has them, in its prompt and reply
    pa.field("said_prompt", pa.int32()),  # messages of the prompt, as the template gets them
    pa.field("said_keys", pa.list_(pa.binary(16))),  # of the messages after `said_before`, those of the reply too
)
RENDERED = tuple(field.name for field in (*WRITTEN_FIELDS, *SAID_FIELDS))
_NONE = -1


def number_cuts(threads):
    """Number the texts before each inner cut of a piece, behind all other texts, so that they are encoded too."""
    texts = list(threads.numbers)
    for number, layout in zip(threads.pieces, threads.layouts, strict=True):
        for stop, *_ in layout[:-1]:
            threads.numbers.setdefault(texts[number][:stop], len(threads.numbers))


def list_runs(threads, said, starts, encoded):
    """Return the columns WRITTEN_FIELDS.

    Parameters
    ----------
    threads : Threads
    said : list of Said
        Of each row.
    starts : (n_rows,) ndarray of int64
        Where the tokens of each row's own pieces begin in its prompt.
    encoded : tuple of ndarray
        Ids and stops: piece k has the tokens ``ids[stops[k]:stops[k + 1]]``.

    Returns
    -------
    list of pyarrow.Array
    """
    cut = _Cutter(list(threads.numbers), threads.numbers, *encoded)
    rows, pieces = [], list(zip(threads.pieces, threads.layouts, strict=True))
    for row, at in enumerate(starts.tolist()):
        runs = []
        for number, layout in pieces[threads.offsets[row] : threads.offsets[row + 1]]:
            for length, *of in cut.cut(number, layout):
                if runs and runs[-1][1:] == of:
                    runs[-1][0] += length
                else:
                    runs.append([(runs[-1][0] if runs else at) + length, *of])
        writers = said[row].writers if threads.is_marked[row] else None
        rows.append([(stop, message, _name(owner, writers)) for stop, message, owner in runs])
    columns = [[[run[k] for run in runs] for runs in rows] for k in range(3)]
    values = [threads.is_marked, *columns]
    return [pa.array(one, field.type) for one, field in zip(values, WRITTEN_FIELDS, strict=True)]


def _name(owner, writers):
    if writers is None:
        return UNKNOWN
    return TEMPLATE if owner == _NONE else SYSTEM if owner == BESIDE else writers[owner - 1]


class _Cutter:
    """Cuts pieces into the tokens of their messages; a token of two is of the first."""

    def __init__(self, texts, numbers, ids, stops):
        self.texts, self.numbers, self.ids, self.stops, self.known = texts, numbers, ids, stops, {}

    def cut(self, number, layout):
        """Return the number of tokens of each part of a piece, its message, and that of its writer."""
        known = self.known.get((number, layout))
        if known is None:
            known = self.known[number, layout] = self._cut(number, layout)
        return known

    def _cut(self, number, layout):
        length = int(self.stops[number + 1] - self.stops[number])
        stops = [*(self._find_stop(number, stop, length) for stop, *_ in layout[:-1]), length]
        sizes = np.diff(np.maximum.accumulate([0, *stops])).tolist()
        parts = [of for _, *of in layout] or [[_NONE, _NONE]]
        return [(size, *of) for size, of in zip(sizes, parts, strict=True) if size]

    def _find_stop(self, number, stop, length):
        """Return how many of a piece's tokens have one of its first `stop` characters: those that its beginning alone
        has too, and one more if that does not end between two of them.
        """
        before = self.numbers[self.texts[number][:stop]]
        beginning = self.ids[self.stops[before] : self.stops[before + 1]]
        own = self.ids[self.stops[number] : self.stops[number + 1]][: len(beginning)]
        differ = np.flatnonzero(beginning[: len(own)] != own)
        return min(int(differ[0]) + 1 if len(differ) else len(beginning), length)
