"""A user's own policy: a function of a block, compiled if numba can, called as Python if it cannot.

Either way the compiled replay calls the function by its address, so the replay is compiled once for all functions.
"""

import ctypes
import hashlib
import inspect
import marshal
import sys
import threading
import traceback
import warnings
from functools import lru_cache
from numbers import Real
from types import CodeType
from typing import NamedTuple

import numpy as np
from numba import cfunc, njit, types

from kvprefix.cache.rule import Rule, rule_fields
from kvprefix.cache.rules.gdsf import ATTENTION
from kvprefix.files.paths import InputError, tell

SIGNATURE = types.float64(*[types.int64] * 4, types.float64, types.float64, types.int64)
_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_double, *[ctypes.c_int64] * 4, *[ctypes.c_double] * 2, ctypes.c_int64)


class Block(NamedTuple):
    """What a user's policy knows of the block that it scores.

    Attributes
    ----------
    now, stored : int
        Positions of the request that accesses the block now, and of the one that stored it.
    uses : int
        Accesses since it was stored, 1 when it is stored.
    depth : int
        Its 0-based position in a prompt.
    cost : float
        Of computing one of its tokens again, with attention, relative to a token without: GDSF's default cost.
    arrival_s : float
        When the accessing request arrives, in seconds.
    turn : int
        0-based turn of the accessing request within its conversation.
    """

    now: int
    stored: int
    uses: int
    depth: int
    cost: float
    arrival_s: float
    turn: int


class Own(Rule, rule_fields("Own", "call", "stored", "turns", "failed")):
    """The score is what the user's function returns; `failed` is the first Block for which that was NaN."""

    def score_block(self, k, now):
        block = self.trace.ids[k]
        stored, uses, depth = self.stored[block], self.cache.uses[block], self.trace.depth[block]
        cost = 1.0 + ATTENTION * self.trace.block_size * (depth + 0.5)
        arrival_s, turn = self.trace.arrival_s[now], self.turns[now]
        score = self.call(now, stored, uses, depth, cost, arrival_s, turn)
        if score != score and self.failed[0] < 0:
            self.failed[0], self.failed[1], self.failed[2], self.failed[3] = now, stored, uses, depth
            self.failed[4], self.failed[5], self.failed[6] = cost, arrival_s, turn
        return score

    def on_store(self, k, now):
        self.stored[self.trace.ids[k]] = now
        self.cache.leaves.scores[self.trace.ids[k]] = self.score_block(k, now)
        return 0

    def check(self):
        self.call.check(self.failed)


def make_own(name, function, trace, cache, setting):
    """Make the rule of a user's function."""
    stored, turns = np.zeros(len(trace.parent), np.int64), count_turns(trace.conversation)
    return Own(trace, cache, Call(name, function), stored, turns, np.full(7, -1.0))


def count_turns(conversation):
    """Return each request's 0-based turn: how many earlier ones are of its conversation.

    >>> count_turns(np.array([4, 7, 4, 4]))
    array([0, 0, 1, 2])
    """
    import pandas as pd  # only a policy of one's own needs it

    return pd.Series(conversation).groupby(conversation).cumcount().to_numpy(np.int64)


class Call(types.WrapperAddressProtocol):
    """A user's function as numba calls it: by its address. What it raises is kept, and NaN is returned instead."""

    def __init__(self, name, function):
        self.name, self.function, self.error = name, function, None
        self.compiled = compile_score(name, function)
        self.callback = None if self.compiled else _CALLBACK(self._call_python)

    def __wrapper_address__(self):
        return self.compiled.address if self.compiled else ctypes.cast(self.callback, ctypes.c_void_p).value

    def signature(self):
        return SIGNATURE

    def _call_python(self, *values):
        if self.error is not None:
            return np.nan
        try:
            return _score(self.function, Block(*values))
        except BaseException as error:  # a callback cannot raise; Ctrl-C ends the replay likewise
            self.error = error
            return np.nan

    def check(self, failed):
        """Raise InputError if the function raised or returned no number; Ctrl-C and the like are raised as they are."""
        if failed[0] < 0:
            return
        block, error = Block(*(kind(value) for kind, value in zip(_KINDS, failed, strict=True))), self.error
        if error is None:  # compiled: Python says what is wrong
            try:
                _score(self.function, block)
            except Exception as found:
                error = found
        if error is not None and not isinstance(error, Exception):
            raise error
        wrong = "returned nan" if error is None else _describe(error)
        raise InputError(
            f"{locate(self.name, self.function, error)} {wrong} for {block}; "
            "expected a number: the block with the lowest goes first"
        ) from error


_KINDS = (int, int, int, int, float, float, int)


class _NoNumber(Exception):
    """What a user's function returned instead of a number."""


def _score(function, block):
    score = function(block)
    if not isinstance(score, Real | np.bool_) or score != score:
        raise _NoNumber(f"returned {score!r}")
    return float(score)


def _describe(error):
    return str(error) if isinstance(error, _NoNumber) else f"raised {type(error).__name__} ({error})"


def locate(name, function, error=None):
    """Name a user's policy with the file, or the notebook's cell, and the line: where it raised an error, if it did."""
    code = function.__code__
    frames = traceback.walk_tb(error.__traceback__ if error else None)
    line = ([at for frame, at in frames if frame.f_code.co_filename == code.co_filename] or [code.co_firstlineno])[-1]
    return f"policy {name!r} ({_name_file(code.co_filename)}, line {line})"


def _name_file(path):
    """Return a path, or the cell of a notebook that it stands for."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    cell = shell.compile.format_code_name(path) if shell else None
    return " ".join(cell) if cell else path


def check_function(name, function):
    """Raise InputError if something is no Python function of one argument."""
    if not inspect.isfunction(function):
        raise InputError(f"policy {name!r} is made of {function!r}; expected a Python function of one block")
    try:
        inspect.signature(function).bind(None)
    except TypeError as error:
        raise InputError(f"{locate(name, function)} takes {inspect.signature(function)}; expected one block") from error


def fingerprint(function):
    """Return a text that differs if a function, or what it reads from outside, differs; not by where it is written."""
    outside = inspect.getclosurevars(function)
    values = repr(sorted({**outside.globals, **outside.nonlocals}.items(), key=lambda item: item[0]))
    defaults = repr((function.__defaults__, function.__kwdefaults__))
    code = marshal.dumps(_without_place(function.__code__), 2)  # later versions depend on what else is in memory
    return hashlib.sha256(code + (values + defaults).encode()).hexdigest()


def _without_place(code):
    """Return a code object without its file and line, which differ with every kernel that runs a cell."""
    inner = tuple(_without_place(one) if isinstance(one, CodeType) else one for one in code.co_consts)
    return code.replace(co_filename="", co_firstlineno=1, co_consts=inner)


_compiling = threading.Lock()


def compile_score(name, function):
    """Compile a user's function as a C function of `Block`'s fields; if numba cannot, say so once and return None."""
    with _compiling:
        return _compile(name, function)


@lru_cache(maxsize=256)
def _compile(name, function):
    compiled = njit(function)

    def call(now, stored, uses, depth, cost, arrival_s, turn):
        try:
            return float(compiled(Block(now, stored, uses, depth, cost, arrival_s, turn)))
        except Exception:
            return np.nan

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return cfunc(SIGNATURE)(call)
    except Exception as error:  # numba has many kinds
        if _works(function):
            where = locate(name, function)
            tell(f"note: {where} cannot be compiled and runs as Python, slowly: {_shorten(error)}", sys.stderr)
        return None


def _works(function):
    """Say whether a function scores a first block; if not, the replay says what is wrong, and no compiler need."""
    try:
        _score(function, Block(now=0, stored=0, uses=1, depth=0, cost=1.0, arrival_s=0.0, turn=0))
    except Exception:
        return False
    return True


def _shorten(error):
    """Return the line of numba's long message that says most."""
    lines = (line.strip(" >\x1b[0m") for line in str(error).splitlines())
    said = [line for line in lines if line and not line.startswith(("Failed in nopython", "During: ", "There are "))]
    return said[0] if said else type(error).__name__
