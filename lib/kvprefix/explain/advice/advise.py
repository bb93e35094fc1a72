"""Find what to change in a workload's prompts, and prove by a replay what each change wins."""

from dataclasses import dataclass

import numpy as np

from kvprefix.explain.advice.bodies import is_head
from kvprefix.explain.advice.changes import Changes
from kvprefix.explain.advice.differ import HISTORY, TEMPLATE
from kvprefix.explain.advice.fixes import FIELD_END, LAST_MESSAGE, Fix
from kvprefix.explain.advice.grams import GRAM, count_seen
from kvprefix.explain.advice.history import add_history
from kvprefix.explain.advice.nearest import find_earlier
from kvprefix.explain.advice.prove import NotRendered, Prover
from kvprefix.explain.advice.sites import DATE, find_dated, find_sites
from kvprefix.files.progress import show_progress

MOST_SITES = 8  # that are replayed: those with most tokens behind them
LEAST = 0.0001  # of the prompt tokens: what stands behind a site that is worth a replay
FARTHER = 0.01  # of the prompt tokens: what the last message must win over the end of the system text to be preferred


@dataclass(frozen=True, kw_only=True)
class Estimates:
    """What is known before anything is rendered again.

    Attributes
    ----------
    earlier : Earlier
    seen : (n,) ndarray of int64
        Tokens behind the place where each prompt parts from the nearest earlier one that were seen before.
    """

    earlier: object
    seen: np.ndarray


@dataclass(eq=False, kw_only=True)
class Proved:
    """A site, and what mending it wins.

    Attributes
    ----------
    site : Site
    fix : Fix
    alone_tokens : int or None
        Hit tokens that this fix alone wins; None if it cannot be replayed.
    tokens : int or None
        That it wins after those before it in the list.
    bounded_tokens : int or None
        The same in the cache of limited size, if one is given.
    rates : tuple of float
        The hit tokens before and after it, per prompt token of the log as it is.
    grown_tokens : int
        By how much all prompts together get longer with it.
    reason : str
        Why it is not proved.
    """

    site: object
    fix: Fix
    alone_tokens: int | None = None
    tokens: int | None = None
    bounded_tokens: int | None = None
    rates: tuple = ()
    grown_tokens: int = 0
    reason: str = ""


def estimate(trace, walks):
    """Find the nearest earlier prompt of each request, and how much of what follows was seen before.

    Parameters
    ----------
    trace : Trace
    walks : Walks
        Of it.

    Returns
    -------
    Estimates
    """
    earlier = find_earlier(walks)
    return Estimates(earlier=earlier, seen=count_seen(trace, earlier.tokens))


def advise(workload, trace, walks, block_size, *, outputs=False, capacity=None, progress=True):
    """Find the sites of a trace and prove what mending each wins.

    Parameters
    ----------
    workload : Workload
    trace : Trace
        Of its requests.
    walks : Walks
        Of the trace.
    block_size : int
    outputs : bool
        Whether generated tokens are cached.
    capacity : int, optional
        Blocks of an LRU cache in which the fixes are replayed, too.
    progress : bool

    Returns
    -------
    Advice
    """
    found = estimate(trace, walks)
    prover = Prover(workload, trace, block_size, outputs=outputs)
    conversation = trace.column("conversation_index").astype(np.int64)
    bodies, rows = prover.bodies, trace.rows.tolist()
    sites = find_sites(
        lambda i: bodies.of(rows[i]), found.earlier, found.seen, conversation, walks.prompt_tokens
    )  # fmt: skip
    sites += find_dated(trace, found, prover.written_times)
    if prover.is_calls:
        sites = add_history(sites, prover, found)
    sites.sort(key=lambda one: -one.estimated_tokens)
    least = max(LEAST * walks.prompt_tokens.sum(), GRAM)
    sites = [one for one in sites if one.estimated_tokens >= least]
    left, sites = sites[MOST_SITES:], sites[:MOST_SITES]
    fixes = [Fix(site=site) for site in sites]
    _survey(fixes, prover)
    trial = _Trial(prover)
    with show_progress(None, "replaying what is changed", " replays", shown=progress) as bar:
        trial.bar = bar
        ranked, unproved = _rank(trial, fixes)
        if capacity is not None:
            trial.bound(ranked, capacity)
    return Advice(
        hits=trial.base, prompt_tokens=walks.prompt_tokens, after=trial.after(ranked), found=found, ranked=ranked,
        unproved=unproved, left=len(left), trial=trial,
    )  # fmt: skip


@dataclass(eq=False, kw_only=True)
class Advice:
    """What to change.

    Attributes
    ----------
    hits, prompt_tokens, after : (n,) ndarrays of int64
        Hit tokens of each request, its prompt's tokens, and its hit tokens if everything is changed.
    found : Estimates
    ranked : list of Proved
        The fixes that win something, each after those before it.
    unproved : list of Proved
        Sites that cannot be replayed.
    left : int
        Sites with fewer tokens behind them, which were not replayed.
    trial : object
        Replays any of the fixes.
    """

    hits: np.ndarray
    prompt_tokens: np.ndarray
    after: np.ndarray
    found: Estimates
    ranked: list
    unproved: list
    left: int
    trial: object

    @property
    def recoverable_tokens(self):
        """Hit tokens that all fixes together win."""
        return int(self.after.sum() - self.hits.sum())


def _survey(fixes, prover):
    """Let each fix see all bodies, in arrival order."""
    for key in prover.keys if fixes else ():
        asked = prover.asked(key)
        for fix in fixes:
            if fix.site.path == HISTORY:
                fix.remember(key, asked, prover.conversation(key), prover.reply(key))
            elif fix.site.path == DATE:
                fix.values[key] = prover.written_times[key]
            elif fix.site.path != TEMPLATE:
                fix.survey(key, asked)


class _Trial:
    """Replays sets of fixes, each set once."""

    def __init__(self, prover):
        self.prover, self.known, self.bar = prover, {}, None
        self.base, self.prompts = prover.replay({})

    def hits(self, some):
        """Return (hit tokens of each request, prompt tokens) with some fixes; raise NotRendered."""
        key = frozenset((id(fix), fix.goes, fix.in_brackets) for fix in some)
        if key not in self.known:
            undated = any(fix.site.path == DATE for fix in some)
            self.known[key] = self.prover.replay(self.change(some), undated=undated)
            self.bar.update(1)
        return self.known[key]

    def win(self, some):
        """Return how many hit tokens some fixes win together."""
        return int(self.hits(some)[0].sum() - self.base.sum()) if some else 0

    def size(self, some):
        """Return the tokens of all prompts with some fixes."""
        return int((self.hits(some)[1] if some else self.prompts).sum())

    def rate(self, some):
        """Return the hit tokens with some fixes per prompt token of the log as it is."""
        return (int(self.base.sum()) + self.win(some)) / max(self.size([]), 1)

    def change(self, some):
        """Return what the keys ask that some fixes change."""
        keys = {key for fix in some for key in fix.values}
        changes, changed = Changes(some), {}
        for key in self.prover.keys:
            if key in keys and (new := changes.apply(key, asked := self.prover.asked(key))) is not asked:
                changed[key] = new
        return changed

    def after(self, ranked):
        """Return the hit tokens of each request with all ranked fixes."""
        return self.hits([one.fix for one in ranked])[0] if ranked else self.base

    def bound(self, ranked, capacity):
        """Replay the ranked fixes in a cache of limited size."""
        before = int(self.prover.replay({}, capacity)[0].sum())
        for k, one in enumerate(ranked):
            some = [each.fix for each in ranked[: k + 1]]
            undated = any(fix.site.path == DATE for fix in some)
            now = int(self.prover.replay(self.change(some), capacity, undated=undated)[0].sum())
            one.bounded_tokens, before = now - before, now


def _rank(trial, fixes):
    """Order fixes by what each wins after those before it; return (those that win, those that cannot be replayed)."""
    alone, unproved = {}, []
    for fix in fixes:
        if reason := _say_unknown(fix):
            unproved.append(Proved(site=fix.site, fix=fix, reason=reason))
            continue
        try:
            alone[fix] = _place(trial, fix)
        except NotRendered as reason:
            unproved.append(Proved(site=fix.site, fix=fix, reason=str(reason)))
    order = _order(trial, list(alone))
    ranked = []
    for k, fix in enumerate(order):
        before, after = order[:k], order[: k + 1]
        ranked.append(Proved(
            site=fix.site, fix=fix, alone_tokens=alone[fix], tokens=trial.win(after) - trial.win(before),
            rates=(trial.rate(before), trial.rate(after)), grown_tokens=trial.size(after) - trial.size(before),
        ))  # fmt: skip
    return ranked, unproved


def _say_unknown(fix):
    """Say why a fix cannot be rendered; nothing if it can."""
    if fix.site.path == TEMPLATE:
        return "another template would be needed"
    gone = fix.site.path == HISTORY and not fix.restored
    return "messages were left out or summed up, and a prompt with all of them is another one" * gone


def _place(trial, fix):
    """Choose how much is moved, and where it goes; return what the fix alone wins."""
    near = trial.win([fix])
    if fix.has_brackets:
        fix.in_brackets = True
        inner = trial.win([fix])
        fix.in_brackets, near = inner > near, max(inner, near)
    first = trial.prover.asked(next(iter(fix.values))) if fix.values else None
    if not trial.prover.is_calls or fix.site.sort not in ("value", "only") or not is_head(first, fix.site.path):
        return near
    fix.goes = LAST_MESSAGE
    far = trial.win([fix])
    if far - near > FARTHER * trial.prover.trace.column("prompt_tokens").sum():
        return far
    fix.goes = FIELD_END
    return near


def _order(trial, fixes):
    """Return the fixes that win something, greedily by what each adds; those that win only together stay together."""
    chosen, rest = [], list(fixes)
    while rest and trial.win(chosen + rest) > trial.win(chosen):
        best = max(rest, key=lambda fix: (trial.win([*chosen, fix]), fix.site.estimated_tokens))
        chosen.append(best)
        rest.remove(best)
    for fix in list(chosen):
        others = [one for one in chosen if one is not fix]
        if trial.win(others) >= trial.win(chosen):
            chosen = others
    return chosen
