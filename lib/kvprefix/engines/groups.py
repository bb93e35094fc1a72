"""The groups of layers that vLLM keeps a model's KV cache in, by name or made by hand.

Layers of one kind share a table of blocks: full attention, sliding windows, chunks of local attention, recurrent
states. A model of one kind of layers has one group. All groups take their blocks from one pool. `group_files` reads
them from a file.
"""

import math
from dataclasses import dataclass

from kvprefix.files.checks import check_block_size, check_choice, check_whole
from kvprefix.files.paths import InputError

KINDS = ("full", "window", "chunk", "state")
SPANS = ("window", "chunk")  # kinds that reach back so many tokens, or to a multiple of them
NAMED = {
    "full": ("full",),
    "gpt-oss": ("full", "window"),
    "gemma3": ("full", *["window"] * 5),
    "llama4": ("full", *["chunk"] * 3),
    "mamba-align": ("full", *["state"] * 3),
    "sliding": ("window",),
}


@dataclass(frozen=True)
class Group:
    """A group of layers that share a table of blocks.

    Attributes
    ----------
    kind : str
        "full", "window", "chunk" (of local attention) or "state" (recurrent).
    span : int, optional
        Tokens of the window or chunk; not for the other kinds.
    block_size : int
        Tokens.

    Examples
    --------
    >>> Group("window", 128)
    Group(kind='window', span=128, block_size=16)
    """

    kind: str
    span: int | None = None
    block_size: int = 16

    def __post_init__(self):
        check_choice(self.kind, "kind of a group", KINDS)
        check_block_size(self.block_size)
        if self.kind in SPANS:
            check_whole(self.span, f"span of a {self.kind} group", "a whole number of tokens, 1 or more")
        elif self.span is not None:
            raise InputError(f"a {self.kind} group has no window or chunk; got {self.span!r}")

    @property
    def label(self):
        """The kind, and the tokens of its window or chunk."""
        return self.kind if self.span is None else f"{self.kind} {self.span}"


def name_groups(model, window=None, block_size=16):
    """Return the groups of a name of `NAMED`.

    Parameters
    ----------
    model : str
    window : int, optional
        Tokens of its windows or chunks.
    block_size : int
        Tokens, of all groups.

    Returns
    -------
    tuple of Group

    Raises
    ------
    InputError
        A window that is missing or has no meaning.

    Examples
    --------
    >>> [group.kind for group in name_groups("gpt-oss", 128)]
    ['full', 'window']
    """
    kinds = NAMED[check_choice(model, "model", NAMED)]
    spans = [kind for kind in kinds if kind in SPANS]
    if spans and window is None:
        raise InputError(f"the model {model} needs --window, the tokens of its {spans[0]}")
    if window is not None and not spans:
        raise InputError(f"the model {model} has no windows or chunks; --window {window} has no meaning")
    return tuple(Group(kind, window if kind in SPANS else None, block_size) for kind in kinds)


def check_groups(groups, retention=None, drop_last_unit=False):
    """Raise InputError unless vLLM can run these groups together, with this retention.

    Parameters
    ----------
    groups : sequence of Group
    retention : int, optional
        Tokens between checkpoints; 0 keeps the ends of prompts only, None everything.
    drop_last_unit : bool
    """
    if not groups:
        raise InputError("the model has no groups; expected one or more")
    sizes, kinds = [group.block_size for group in groups], {group.kind for group in groups}
    unit, listed = math.lcm(*sizes), ", ".join(map(str, sorted(set(sizes))))
    check_whole(unit, "least common multiple of the block sizes", "one below 2**31: sizes that divide each other")
    if "chunk" in kinds and len(set(sizes)) > 1:
        raise InputError(f"block sizes {listed} do not align: with chunked groups all groups need blocks of one size")
    if "chunk" in kinds and drop_last_unit:
        raise InputError("--drop-last-unit does not go with chunked groups: vLLM refuses it")
    states = {group.block_size for group in groups if group.kind == "state"}
    if states and (len(states) > 1 or states != {math.gcd(*sizes)}):
        raise InputError(
            f"block sizes {listed} do not align: a recurrent group needs the smallest, which divides the others "
            "(hits within its blocks are not modelled)"
        )
    if retention is None:
        return
    check_whole(retention, "retention", "0, none or a whole number of tokens", least=0)
    if retention % unit:
        raise InputError(f"retention is {retention}; expected 0, none or a multiple of {unit}, the unit of hits")
    if retention and not kinds & {"window", "state"}:
        raise InputError(f"retention is {retention}, but the model has no window or recurrent group; expected 0")
