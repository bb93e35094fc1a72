"""The eviction policies that are known: the library's own in `rules`, and those that a user adds.

To add one to the library, write a module in `rules` and name its entry here; all that lists policies reads POLICIES. To
add your own from outside, see `policy`.
"""

from functools import partial
from numbers import Real

from kvprefix.cache.hinted import DESCRIBED
from kvprefix.cache.own import check_function, make_own
from kvprefix.cache.policy import Policy
from kvprefix.cache.rules.fifo import FIFO, FIFO_FLAT
from kvprefix.cache.rules.gdsf import GDSF
from kvprefix.cache.rules.lfu import LFU
from kvprefix.cache.rules.lru import LRU
from kvprefix.cache.rules.opt import OPT
from kvprefix.cache.rules.s3fifo import S3FIFO
from kvprefix.cache.rules.slru import SLRU
from kvprefix.cache.rules.ttl import TTL
from kvprefix.files.paths import InputError
from kvprefix.files.words import guess

POLICIES = {one.name: one for one in (LRU, FIFO, FIFO_FLAT, LFU, SLRU, S3FIFO, GDSF, TTL, OPT)}
LIBRARY = frozenset(POLICIES)


def add_policy(new):
    """Add a policy by its name, for commands, studies, figures and tables; return it.

    Raises
    ------
    InputError
        A name that one of the library's own has, or that a comma-separated list cannot hold. Any other
        policy is replaced by the next of its name, so that a notebook's cell can run again.
    """
    if not isinstance(new.name, str) or not new.name or "," in new.name or new.name != new.name.strip():
        raise InputError(f"policy {new.name!r}: expected a name without commas, and without spaces around it")
    if new.name in LIBRARY | DESCRIBED.keys():
        raise InputError(f"policy {new.name!r} is one of the library's own; give yours another name")
    POLICIES[new.name] = new
    return new


def policy(name, label=None, *, definition=None, look=None):
    """Make a policy of a function that scores a block: the leaf with the lowest score is evicted first.

    A block is scored when it is stored and at each access. numba compiles the function if it can; if not, it runs as
    Python, which is said once. Values that the function reads from outside are taken as they are when it is compiled.

    Parameters
    ----------
    name : str
        The name by which commands and functions take it from now on.
    label : str, optional
        As figures and tables show it; the name if not given.
    definition : str, optional
        What it evicts; the first line of the function's docstring if not given.
    look : Look, optional
        Of its line in figures.

    Returns
    -------
    callable
        Takes the function and returns its Policy, which can be used like a name. The function gets an `own.Block`.

    Raises
    ------
    InputError
        A name that the library has taken; no function of one argument. While replaying: a function that raises, or
        returns NaN or no number.

    Examples
    --------
    >>> from kvprefix.blocks.prefix_trace import make_prefix_trace
    >>> from kvprefix.cache.replay import replay
    >>> from kvprefix.traces.trace import make_trace_of
    >>> @policy("mine")
    ... def my_policy(block):
    ...     return block.now + 50 * block.uses
    >>> trace = make_prefix_trace(make_trace_of([[1], [1], [2], [3], [1]]), 1)
    >>> replay(trace, 2, my_policy), replay(trace, 2, "lru")
    (array([0, 1, 0, 0, 1]), array([0, 1, 0, 0, 0]))
    >>> del POLICIES["mine"]
    """

    def add(function):
        check_function(name, function)
        said = definition or (function.__doc__ or "").strip().partition("\n")[0] or "A score of the user's own."
        return add_policy(
            Policy(
                name=name, label=name if label is None else label, definition=said, look=look, score=function,
                make_rule=partial(make_own, name, function),
            )
        )  # fmt: skip

    return add


def find_policy(name):
    """Return a policy by name, or the Policy that was given; raise InputError with the known names otherwise."""
    if isinstance(name, Policy):
        return name
    if name not in POLICIES:
        raise InputError(f"policy {name!r} is not known; known: {', '.join(POLICIES)}{guess(name, POLICIES)}")
    return POLICIES[name]


def label_policy(name):
    """Return how figures and tables show a policy: its label, or the name if no policy of that name is known here."""
    known = POLICIES.get(name) or DESCRIBED.get(name)
    return known.label if known else name


def check_setting(name, setting=None):
    """Return a policy's setting, its default if none is given, or raise InputError if it is out of range."""
    known = find_policy(name)
    if setting is None:
        return known.default
    if known.setting is None:
        raise InputError(f"policy {known.name} has no setting")
    most = known.setting.most
    if isinstance(setting, bool) or not isinstance(setting, Real) or not 0 <= setting <= most:
        expected = f"a share between 0 and {most:g}" if most < float("inf") else "a number, 0 or more"
        raise InputError(
            f"policy {known.name}: its setting is {setting!r}; expected {expected} ({known.setting.meaning})"
        )
    return setting
