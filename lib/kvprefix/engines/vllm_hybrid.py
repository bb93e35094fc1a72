"""Replay requests through vLLM's prefix cache of a hybrid model: groups of layers of several kinds, one pool.

What differs from full attention alone (`vllm` has what does not):

- Each group has blocks of its own, from one pool. A prefix is cached only as far as every group has what it needs to go
  on from there: full attention all of it, a window what it reaches back to, a recurrent layer the state at that place.
- Hits are multiples of the unit: the least common multiple of the groups' block sizes.
- Windows and recurrent layers keep only what *retention* says. vLLM's default, 0: the end of each prompt, and the
  junctions, where a longer prefix was cached in some groups but could not be resumed. So what was generated, and a
  shorter prompt, is not hit until a second request has met it.
- Blocks out of a window's reach are given back while the request runs.

As in vLLM 0.32, one request at a time. Not modelled: requests at once, the asynchronous scheduler, hits within a block
of recurrent states, packed layouts, draft tokens.
"""

from dataclasses import KW_ONLY, dataclass
from typing import ClassVar

import numpy as np

from kvprefix.blocks.stretches import count_leading, describe_stretches, find_paths
from kvprefix.engines.groups import Group, check_groups
from kvprefix.engines.hybrid_layout import make_layout
from kvprefix.engines.hybrid_pool import count_held, make_blocks
from kvprefix.engines.hybrid_steps import replay_steps
from kvprefix.engines.hybrid_tables import make_tables
from kvprefix.engines.replayed import EngineReplayed
from kvprefix.engines.versions import HYBRID_VERSIONS, find_rules
from kvprefix.engines.vllm import check_blocks, count_tokens
from kvprefix.engines.vllm_one_by_one import Work
from kvprefix.files.checks import check_whole
from kvprefix.files.paths import InputError

_SHORT = 16  # tokens that requests have in common without meaning to; vLLM's smallest block


@dataclass(frozen=True)
class VLLMHybrid:
    """vLLM's prefix cache of a model with one or more groups of layers.

    Attributes
    ----------
    groups : tuple of Group
        In the order in which they take blocks; see `group_files.read_groups`.
    version : str
        0.32 or newer.
    blocks : int, optional
        Of the pool of all groups, the null block counted. Unlimited if not given.
    outputs : bool
        Whether tokens are generated.
    retention : int, optional
        Tokens between the checkpoints of windows and recurrent layers. 0, vLLM's default, keeps the ends of prompts and
        junctions only; None keeps everything.
    drop_last_unit : bool
        The last unit of a hit is computed again, as with speculative decoding of the EAGLE or MTP kind. Draft tokens
        take no room.
    step_tokens : int
        That a step computes at most (`--max-num-batched-tokens`).

    Raises
    ------
    InputError
        Groups that vLLM cannot run together, or a number out of range.

    Examples
    --------
    Blocks of 2 tokens, full attention and a window of 3. The prompt's end is kept, a shorter prompt is not.

    >>> from kvprefix.traces.trace import make_trace_of
    >>> groups = Group("full", block_size=2), Group("window", 3, block_size=2)
    >>> prompts = [[1, 2, 3, 4, 5, 6, 7], [1, 2, 3, 4, 5, 6, 7], [1, 2, 3, 4, 5]]
    >>> VLLMHybrid(groups).replay(make_trace_of(prompts)).hit_tokens
    array([0, 6, 0])
    >>> VLLMHybrid(groups, retention=None).replay(make_trace_of(prompts)).hit_tokens
    array([0, 6, 4])
    """

    null_blocks: ClassVar[int] = 1  # of a pool, never used
    overlap: ClassVar[None] = None  # requests run one after the other

    groups: tuple[Group, ...]
    version: str = HYBRID_VERSIONS.newest
    _: KW_ONLY
    blocks: int | None = None
    outputs: bool = True
    retention: int | None = 0
    drop_last_unit: bool = False
    step_tokens: int = 8192

    def __post_init__(self):
        object.__setattr__(self, "groups", tuple(self.groups))
        find_rules(HYBRID_VERSIONS, self.version)
        check_groups(self.groups, self.retention, self.drop_last_unit)
        check_blocks(self.blocks)
        check_whole(self.step_tokens, "number of tokens of a step", "a whole number, 1 or more")

    @property
    def label(self):
        """Name and version."""
        return f"vLLM {self.version}, {len(self.groups)} group{'s' * (len(self.groups) > 1)}"

    @property
    def layout(self):
        """The groups, for compiled code."""
        return make_layout(self.groups, self.retention, self.drop_last_unit, self.step_tokens)

    def replay(self, trace, paths=None):
        """Replay a trace.

        Parameters
        ----------
        trace : Trace
        paths : Paths, optional
            Of ``find_paths(trace, layout.hashed, outputs=True)``, if they are known already.

        Returns
        -------
        EngineReplayed
            Its `block_size` is the unit of hits. `details` has `groups`, `group_block_sizes` and `hashed_blocks_at_end`
            (physical blocks that hold a full one), lists with an entry per group.

        Raises
        ------
        InputError
            More blocks than a replay can number.
        """
        layout, known = self.layout, find_rules(HYBRID_VERSIONS, self.version)
        paths = find_paths(trace, layout.hashed, outputs=self.outputs) if paths is None else paths
        prompts, wanted = count_tokens(trace, self.outputs)
        table_blocks = [int((-(-wanted // group.block_size)).sum()) for group in self.groups]
        n_blocks, n_keys = min(self.blocks or 2**31, 1 + sum(table_blocks)), paths.n_distinct * len(self.groups)
        if max(n_blocks, n_keys) >= 2**31:
            raise InputError("the requests hold 2**31 blocks or more in all groups; expected fewer")
        pool, most = make_blocks(n_blocks - 1, n_keys), int(wanted.max(initial=0))
        tables = make_tables(len(self.groups), -(-most // min(layout.groups["size"])), most // layout.hashed)
        work = Work(paths, prompts, wanted, layout.hashed, n_blocks - 1)
        hits, reached, pool = replay_steps(pool, layout, tables, work, _number_contents(paths))
        cached, held = count_held(pool, len(self.groups))
        notes = [note for note in (known.note, self._note_short(trace, hits, layout.unit)) if note]
        return EngineReplayed(
            hit_tokens=hits, prompt_tokens=prompts, evictions=int(pool.state["evictions"][0]), label=self.label,
            details=({"note": "; ".join(notes)} if notes else {}) | {
                "groups": [group.label for group in self.groups],
                "group_block_sizes": [group.block_size for group in self.groups],
                "retention": "none" if self.retention is None else self.retention,
                "hashed_blocks_at_end": held.tolist(),
            },
            block_size=layout.unit, blocks=self.blocks, rules=known.rules, cached_hashes=int(cached.sum()),
            blocks_with_hash=int(held.sum()), outputs_cut=int(((reached < wanted) & (hits >= 0)).sum()),
        )  # fmt: skip

    def _note_short(self, trace, hits, unit):
        """Say so if most of what requests share is shorter than a unit; such prefixes are never hit."""
        if unit <= _SHORT or 2 * (hits > 0).sum() > len(hits):
            return ""
        shared = count_leading(find_paths(trace, 1, outputs=self.outputs), trace.column("prompt_tokens") - 1)
        shared = shared[shared >= _SHORT]
        short = shared < unit
        if 2 * short.sum() <= len(shared):
            return ""
        return (
            f"your sharing is shorter than one block: of {len(shared):,} requests that share {_SHORT} tokens or more "
            f"with an earlier one, {short.sum():,} share fewer than {unit:,}, the unit of hits"
        )

    def explain_refusal(self, prompt_tokens):
        """Say why a prompt of this many tokens never fits."""
        layout = self.layout
        needed = int(np.minimum(-(-prompt_tokens // layout.groups["size"]), layout.groups["cap"]).sum())
        return f"the prompt needs up to {needed} blocks in {len(self.groups)} groups and the pool has {self.blocks - 1}"


def _number_contents(paths):
    """Return the content of each stretch's block at depth 0, were it in the stretch; contents of a stretch are next."""
    stretches = describe_stretches(paths)
    return np.cumsum(stretches.lengths, dtype=np.int64) - stretches.end
