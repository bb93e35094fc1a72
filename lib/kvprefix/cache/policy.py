"""An eviction policy as a single entry, `Policy`, for all that lists, runs, draws or explains policies."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

from kvprefix.files.paths import InputError


@dataclass(frozen=True, kw_only=True)
class Setting:
    """The one number that a policy may be given.

    Attributes
    ----------
    default : float
    most : float
        The largest that is allowed; the least is 0.
    meaning : str
        What it is, with its unit.
    """

    default: float
    most: float = float("inf")
    meaning: str


@dataclass(frozen=True, kw_only=True)
class Look:
    """How a policy's line looks in every figure, as Matplotlib takes it; `rank` is its place in legends."""

    color: str
    linestyle: str | tuple
    marker: str
    rank: float = float("inf")

    def as_line(self):
        """Return what a line is drawn with, as keywords."""
        return {"color": self.color, "linestyle": self.linestyle, "marker": self.marker}


@dataclass(frozen=True, kw_only=True)
class Policy:
    """An eviction policy.

    Attributes
    ----------
    name : str
        As a command or a call takes it.
    label : str
        As figures and tables show it.
    definition : str
        What it evicts, in sentences.
    source : str
        Who described it, and where; empty if it is nobody's or the user's own.
    setting : Setting, optional
    look : Look, optional
        Of its line; if not given, a figure takes a look that no other line has.
    is_bound : bool
        Whether it knows the future: no policy that could run does better.
    holds : bool
        Whether it is defined if running requests hold their blocks.
    make_rule : callable, optional
        ``make_rule(trace, cache, setting)`` returns the policy's `rule.Rule` for a TreeTrace and an empty TreeCache.
    queues : int
        How many heaps of leaves its cache has.
    replay_free : callable, optional
        ``replay_free(trace, capacities, setting)`` yields (hit blocks of each request, evictions) of a PrefixTrace for
        each capacity, if no request holds its blocks: faster than the tree, or the only way.
    score : callable, optional
        The user's own function, see `policies.policy`.
    """

    name: str
    label: str
    definition: str
    source: str = ""
    setting: Setting | None = None
    look: Look | None = None
    is_bound: bool = False
    holds: bool = True
    make_rule: Callable | None = None
    queues: int = 1
    replay_free: Callable | None = None
    score: Callable | None = None

    def __reduce_ex__(self, protocol):
        """Pickle the policy; a user's own by its name in its module, which other processes can import."""
        if self.score is None:
            return super().__reduce_ex__(protocol)
        module, name = self.score.__module__, self.score.__qualname__
        if getattr(sys.modules.get(module), name, None) is not self or module == "__main__":
            raise InputError(
                f"policy {self.name!r} is known to this process alone; define it at the top of a module that other "
                "processes can import, or run tasks in this one (scheduler `local`)"
            )
        return _import, (module, name)

    @property
    def default(self):
        """The setting's default, None if there is no setting."""
        return None if self.setting is None else self.setting.default


def _import(module, name):
    return getattr(import_module(module), name)
