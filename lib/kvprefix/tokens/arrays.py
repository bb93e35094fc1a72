"""The token ids of many requests, each stored once, in flat arrays that may lie in files.

It knows no arrival times and no blocks.
"""

import functools
import struct
from dataclasses import dataclass

import numpy as np
from numba import njit

from kvprefix.files.mapped import release
from kvprefix.files.paths import InputError

PART_TOKENS = 2**22  # about the size of a part, which is in memory at one time


@dataclass(frozen=True)
class Tokens:
    """The token ids of many requests, each stored once: a prompt is the start of an earlier one and its own tokens.

    Row r's prompt is the first ``shared[r]`` tokens of row ``parent[r]``'s prompt, then its own tokens. In a chat the
    parent is the previous turn; a row without a parent has parent -1 and shared 0.

    Attributes
    ----------
    parent : (n,) ndarray of int64
        An earlier row, or -1.
    shared : (n,) ndarray of int64
        Tokens shared with the parent.
    own_offsets, output_offsets : (n + 1,) ndarray of int64
        Row r's own tokens are ``own[own_offsets[r]:own_offsets[r + 1]]``; outputs likewise.
    own : ndarray of int32
    own_is_template : ndarray of bool
        For each own token, whether the chat template wrote it rather than a message.
    output : ndarray of int32
        Generated tokens, with the end-of-turn token; a row has none if the log has no reply.
    """

    parent: np.ndarray
    shared: np.ndarray
    own_offsets: np.ndarray
    own: np.ndarray
    own_is_template: np.ndarray
    output_offsets: np.ndarray
    output: np.ndarray

    def prompt_lengths(self):
        """Return the number of prompt tokens of every row, (n,) int64."""
        return self.shared + np.diff(self.own_offsets)

    def prompt(self, row):
        """Return the prompt of a row as an int32 array."""
        return copy_prompt(row, 0, self.parent, self.shared, self.own_offsets, self.own)

    def generated(self, row):
        """Return the output of a row as an int32 array."""
        return self.output[self.output_offsets[row] : self.output_offsets[row + 1]]

    def parts(self):
        """Yield (first row, Tokens of the rows from there on), cut where no later row continues an earlier one.

        A part's tokens are not copied; if they are in a file, their memory is released when the next part is asked for.
        A part has at least PART_TOKENS tokens, more if its rows depend on one another; the last part may have fewer.
        """
        needs = np.where(self.shared > 0, self.parent, np.arange(len(self.shared)))
        needs = np.minimum.accumulate(needs[::-1])[::-1]  # the first row that this row or a later one needs
        cuts = np.append(np.flatnonzero(needs == np.arange(len(needs))), len(needs))
        before = (self.own_offsets + self.output_offsets)[cuts]
        first, last = 0, len(cuts) - 1
        while first < last:
            stop = min(max(int(np.searchsorted(before, before[first] + PART_TOKENS)), first + 1), last)
            part = self._slice(cuts[first], cuts[stop])
            yield int(cuts[first]), part
            for array in (part.own, part.own_is_template, part.output):
                release(array)
            first = stop

    def _slice(self, start, stop):
        own, output = self.own_offsets[start : stop + 1], self.output_offsets[start : stop + 1]
        shared = self.shared[start:stop]
        return Tokens(
            np.where(shared > 0, self.parent[start:stop] - start, -1), shared,
            own - own[0], self.own[own[0] : own[-1]], self.own_is_template[own[0] : own[-1]],
            output - output[0], self.output[output[0] : output[-1]],
        )  # fmt: skip

    @functools.cached_property
    def without_template(self):
        """The same prompts without the tokens that the chat template wrote (outputs unchanged), as MessageTokens."""
        lengths, shared = np.empty(len(self.shared), np.int64), np.empty(len(self.shared), np.int64)
        for start, part in self.parts():
            stripped = strip_template(part)
            stop = start + len(stripped.shared)
            lengths[start:stop], shared[start:stop] = np.diff(stripped.own_offsets), stripped.shared
        return MessageTokens(self, shared, np.concatenate(([0], np.cumsum(lengths))))


@dataclass(frozen=True)
class MessageTokens:
    """Tokens without those that the chat template wrote: read like `Tokens`, and stripped part by part while read.

    Attributes
    ----------
    source : Tokens
        With the template's tokens.
    shared : (n,) ndarray of int64
    own_offsets : (n + 1,) ndarray of int64
    """

    source: Tokens
    shared: np.ndarray
    own_offsets: np.ndarray

    prompt_lengths = Tokens.prompt_lengths
    generated = Tokens.generated
    parent = property(lambda self: self.source.parent)
    output_offsets = property(lambda self: self.source.output_offsets)
    output = property(lambda self: self.source.output)

    def prompt(self, row):
        """Return the prompt of a row as an int32 array."""
        source = self.source
        is_template = source.own_is_template.view(np.int8)
        flags = copy_prompt(row, 0, source.parent, source.shared, source.own_offsets, is_template)
        return source.prompt(row)[flags == 0]

    def parts(self):
        """Yield (first row, Tokens of the rows from there on), as `Tokens.parts` does."""
        for start, part in self.source.parts():
            yield start, strip_template(part)


def check_parents(tokens):
    """Raise ValueError if a row continues one that is not before it."""
    if (tokens.parent >= np.arange(len(tokens.parent))).any():
        raise ValueError("a row of the tokens continues itself or a later row; expected an earlier one")


def strip_template(tokens):
    """Return the tokens of one part without those that the chat template wrote, in memory."""
    shared = _kept_in_shared(tokens.parent, tokens.shared, tokens.own_offsets, tokens.own_is_template)
    own_offsets, own = _keep_messages(tokens.own_offsets, tokens.own, tokens.own_is_template)
    return Tokens(
        tokens.parent, shared, own_offsets, own, np.zeros(len(own), bool), tokens.output_offsets, tokens.output
    )


@njit(cache=True, nogil=True)
def copy_prompt(row, start, parent, shared, own_offsets, own):
    """Return the tokens of a row's prompt from position `start` on, gathered from it and its parents, int32."""
    stop = shared[row] + own_offsets[row + 1] - own_offsets[row]
    out = np.empty(max(stop - start, 0), np.int32)
    while stop > start:
        low = max(start, shared[row])
        if low < stop:
            first = own_offsets[row] + low - shared[row]
            out[low - start : stop - start] = own[first : first + stop - low]
            stop = low
        row = parent[row]
    return out


@njit(cache=True, nogil=True)
def _keep_messages(own_offsets, own, is_template):
    """Return (offsets, tokens) of what no template wrote."""
    offsets, kept, count = np.empty_like(own_offsets), np.empty_like(own), 0
    for row in range(len(offsets) - 1):
        offsets[row] = count
        for k in range(own_offsets[row], own_offsets[row + 1]):
            kept[count] = own[k]
            count += not is_template[k]
    offsets[-1] = count
    return offsets, kept[:count].copy()


@njit(cache=True, nogil=True)
def _kept_in_shared(parent, shared, own_offsets, is_template):
    """Return how many tokens of what each row shares no template wrote, (n,) int64."""
    kept = np.zeros(len(shared), np.int64)
    for child in range(len(shared)):
        stop, row = shared[child], parent[child]
        while stop > 0:
            if stop > shared[row]:
                first = own_offsets[row]
                kept[child] += stop - shared[row]
                for k in range(first, first + stop - shared[row]):
                    kept[child] -= is_template[k]
                stop = shared[row]
            row = parent[row]
    return kept


def make_tokens(prompts, outputs):
    """Make Tokens from lists of ids, one prompt and one output per request; every prompt is stored whole.

    Raises
    ------
    InputError
        A token id that is no whole number from 0 to 2**31 - 1.

    Examples
    --------
    >>> make_tokens([[1, 2], [1, 2, 3]], [[], [7]]).prompt(1)
    array([1, 2, 3], dtype=int32)
    """
    return make_flat_tokens(*_flatten(prompts, "prompt"), *_flatten(outputs, "output"))


def make_flat_tokens(own_offsets, own, output_offsets, output):
    """Make Tokens from flat prompts and outputs, each prompt stored whole, none of it written by a template."""
    n = len(own_offsets) - 1
    return Tokens(
        np.full(n, -1), np.zeros(n, np.int64), own_offsets, own, np.zeros(len(own), bool), output_offsets, output
    )


def _flatten(lists, name):
    """Return lists of token ids as (offsets, ids)."""
    offsets = np.concatenate(([0], np.cumsum([len(one) for one in lists], dtype=np.int64))).astype(np.int64)
    ids = np.empty(offsets[-1], np.int32)
    for i, one in enumerate(lists):
        try:
            struct.pack_into(f"{len(one)}i", ids, 4 * int(offsets[i]), *one)  # the fastest way for a list
        except struct.error as error:
            raise InputError(f"{name} {i}: {error}; expected token ids, whole numbers from 0 to 2**31 - 1") from error
    if len(ids) and ids.min() < 0:
        raise InputError(f"{name}s hold the token id {ids.min()}; expected whole numbers from 0 to 2**31 - 1")
    return offsets, ids
