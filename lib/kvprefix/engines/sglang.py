"""Replay requests through SGLang's radix prefix cache: token ids in, the cached tokens of each request out.

The rules are those of SGLang 0.5.23 for full attention, each with its file below ``sglang/srt``.
`sglang_tree` and `sglang_replay` are the compiled core.

- A cached prefix is a path in a tree whose nodes hold whole pages of tokens; a child is found by its first page, the
  adapter and the salt (`mem_cache/radix_cache.py`, `mem_cache/unified_cache/unified_tree_core.py`).
- A prompt of L tokens hits the longest path that its first L - 1 tokens have in the tree, in whole pages: the last
  token is always computed (`managers/schedule_batch.py`). A path that ends inside a node splits it.
- The hit path is locked while the request runs, so that it is not evicted (`managers/schedule_policy.py`).
- Before a prompt is computed, leaves are evicted until its new tokens find room, plus a page if pages hold more than
  one token; before each generated token, until one page is free, needed or not (`mem_cache/allocation.py`).
- The leaf that was accessed the longest ago is evicted, whole, even if less would do; its parent may be the next one
  (`mem_cache/evict_policy.py`, `mem_cache/unified_cache/components/full.py`).
- The computed prompt goes into the tree at once, the generated tokens when the request finishes, as a node of their
  own: whole pages, without the last generated token, whose KV is never computed. What the tree has already is freed,
  not kept twice (`managers/scheduler_components/batch_result_processor.py`, `mem_cache/common.py`,
  `mem_cache/unified_radix_cache.py`).
- A lookup and an insertion count as an access of the whole path; the rest of a node that they split counts as accessed
  just before it.
- Of a pool of C tokens (a padded slot 0 comes on top: `mem_cache/allocator`), a prompt of C - 6 tokens or more is
  refused (`managers/tp_worker.py`, `managers/utils.py`). One of C - page or more waits for ever
  (`mem_cache/prefill_budget.py`); here it counts as refused. A generation ends when the pool is full: at C - L - 2
  tokens, or C - page - 1 less the prompt's pages (`managers/scheduler.py`, `mem_cache/allocator/base.py`).

Not modelled: requests that run at once, chunked prefill (which cuts nodes at the ends of chunks), the overlap scheduler
(which takes room for a token after the last one), speculative decoding, hierarchical caches, sliding windows, images.
"""

from dataclasses import KW_ONLY, dataclass
from typing import ClassVar

import numpy as np

from kvprefix.blocks.stretches import find_paths
from kvprefix.engines.replayed import EngineReplayed
from kvprefix.engines.sglang_replay import Work, replay_pages
from kvprefix.engines.sglang_tree import count_pages, make_tree
from kvprefix.engines.versions import SGLANG_VERSIONS, find_rules
from kvprefix.files.checks import check_block_size, check_whole
from kvprefix.files.paths import InputError

_UNLIMITED = 2**62  # tokens


@dataclass(frozen=True)
class SGLang:
    """SGLang's radix cache; each request finishes before the next starts.

    Attributes
    ----------
    version : str
        Of `SGLANG_VERSIONS`.
    block_size : int
        Tokens of a page.
    blocks : int, optional
        Pages of the pool, none of them a null block; unlimited if not given.
    outputs : bool
        Whether tokens are generated (and cached); otherwise a request is over when its prompt is computed.
    overlap : None
        Requests that run at once are not modelled.

    Raises
    ------
    InputError
        No version, or one that is too old; a page size or a number of pages out of range; an `overlap`.

    Examples
    --------
    Pages of one token, as SGLang has by default. The second request hits all of its tokens but the last.

    >>> from kvprefix.traces.trace import make_trace_of
    >>> SGLang().replay(make_trace_of([[1, 2, 3, 4], [1, 2, 3, 4], [1, 2, 9]])).hit_tokens
    array([0, 3, 2])
    """

    null_blocks: ClassVar[int] = 0

    version: str = SGLANG_VERSIONS.newest
    _: KW_ONLY
    block_size: int = 1
    blocks: int | None = None
    outputs: bool = True
    overlap: None = None

    def __post_init__(self):
        find_rules(SGLANG_VERSIONS, self.version)
        check_block_size(self.block_size)
        _check_pages(self.blocks, self.block_size)
        if self.overlap is not None:
            raise InputError("requests that run at once are not modelled for SGLang; expected one after the other")

    @property
    def label(self):
        """Name and version."""
        return f"SGLang {self.version}"

    def replay(self, trace, paths=None):
        """Replay a trace.

        Parameters
        ----------
        trace : Trace
        paths : Paths, optional
            Of ``find_paths(trace, block_size, outputs=True)``, if they are known already.

        Returns
        -------
        EngineReplayed
            `cached_hashes` and `blocks_with_hash` are both the pages in the tree at the end, since none is there twice.
        """
        page_size, rows, tokens = int(self.block_size), trace.rows, trace.tokens
        paths = find_paths(trace, page_size, outputs=self.outputs) if paths is None else paths
        capacity = _UNLIMITED if self.blocks is None else int(self.blocks) * page_size
        prompts = tokens.prompt_lengths()[rows]
        generated = np.diff(tokens.output_offsets)[rows] if self.outputs else np.zeros(len(rows), np.int64)
        paged = -(-prompts // page_size) * page_size
        room = np.minimum(capacity - prompts - 2, capacity - paged - page_size - 1)
        fits = prompts <= longest_prompt(capacity, page_size)
        computed = prompts + np.maximum(np.minimum(generated, room) - 1, 0)
        tree = make_tree(paths, int(min(5 * len(rows), capacity // page_size) + 2))
        cached = replay_pages(tree, Work(prompts, np.where(fits, computed, -1), page_size, capacity // page_size))
        pages, known = count_pages(tree), find_rules(SGLANG_VERSIONS, self.version)
        return EngineReplayed(
            hit_tokens=np.where(cached < 0, -1, cached * page_size), prompt_tokens=prompts,
            evictions=pages.evicted, label=self.label,
            details={"note": known.note} if known.note else {}, block_size=page_size, blocks=self.blocks,
            rules=known.rules, cached_hashes=pages.stored, blocks_with_hash=pages.stored,
            outputs_cut=int((fits & (generated > room)).sum()),
        )  # fmt: skip

    def explain_refusal(self, prompt_tokens):
        """Say why a prompt of this many tokens never fits."""
        most = longest_prompt(self.blocks * self.block_size, self.block_size)
        return f"the prompt has {prompt_tokens} tokens and SGLang takes {most} at most with this pool"


def longest_prompt(capacity_tokens, page_size):
    """Return the tokens of the longest prompt that a pool takes.

    >>> longest_prompt(1024, 1), longest_prompt(1024, 16)
    (1017, 1007)
    """
    return max(capacity_tokens - max(6, page_size) - 1, 0)


def _check_pages(pages, page_size):
    """Raise InputError unless a number of pages is 1 or more, or None for unlimited."""
    if pages is not None:
        expected, most = "a whole number, 1 or more, or unlimited", _UNLIMITED // page_size - 1
        check_whole(pages, "number of GPU blocks", expected, most=most)
