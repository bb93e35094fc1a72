"""Places where prompts part though what follows was seen before: found by comparing each with the nearest earlier one.

A site is a field, and what differs there: a value within a unit of text, an order, white space, the history.
"""

import os
import re
from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np

from kvprefix.explain.advice.bodies import is_head
from kvprefix.explain.advice.differ import HISTORY, TEMPLATE, compare_asked
from kvprefix.explain.advice.units import cut_value, find_orders, is_like, plain_space, shape, widen

MOST_PAIRS = 2000  # requests that are compared with an earlier one: those with most tokens behind
SLACK = 8  # tokens that a template may write last in a prompt alone
MOST_CHANGES = 12  # units that differ between two prompts of one kind; with more, they are just other texts
_WORD = re.compile(r"\w+")
DATE = ("date of the template",)


@dataclass(eq=False, kw_only=True)
class Site:
    """A place where prompts part.

    Attributes
    ----------
    sort : str
        `value`, `only`, `order`, `json`, `whitespace`, `history`, `template` or `date`.
    path : tuple
        The field, see `bodies`.
    label, tail : str
        What stands before and behind the value in its unit.
    places : set of int
        Which units of the field it was.
    members : set of str
        Units whose order changes; of JSON, see `find_orders`; of white space, `lines` if empty lines come and go.
    parted : dict of int to int
        The requests that part from the nearest earlier one here, and how many of the tokens behind were seen before.
    behind : dict of int to int
        The same of requests that part from the earlier one before the site, but differ here, too.
    conversations : set of int
    both : tuple of str
        A unit as it is in a prompt, and in the nearest earlier one.
    pair : tuple of int
        These two requests.
    """

    sort: str
    path: tuple
    label: str = ""
    tail: str = ""
    places: set = field(default_factory=set)
    members: set = field(default_factory=set)
    parted: dict = field(default_factory=dict)
    behind: dict = field(default_factory=dict)
    conversations: set = field(default_factory=set)
    both: tuple = ("", "")
    pair: tuple = (-1, -1)

    @property
    def estimated_tokens(self):
        """Tokens behind the site that were seen before; if nothing parts here first, those behind what does."""
        return sum(self.parted.values()) or sum(self.behind.values())


def find_sites(asked, earlier, seen, conversation, prompt_tokens):
    """Find the sites of some requests.

    Parameters
    ----------
    asked : callable
        Returns the Asked of a request.
    earlier : Earlier
    seen : (n,) ndarray of int64
        Tokens behind the place where each request parts from the earlier one that were seen before.
    conversation, prompt_tokens : (n,) ndarrays of int64

    Returns
    -------
    list of Site
        Of two conversations or more (in what users write, of three), or of the only one, whose history changes; those
        with most tokens behind come first.
    """
    some = ((seen > SLACK) & (earlier.requests >= 0)).nonzero()[0]
    some = sorted(sorted(some.tolist(), key=lambda i: -seen[i])[:MOST_PAIRS])
    found = _Found()
    for i in some:
        j = int(earlier.requests[i])
        same = conversation[i] == conversation[j]
        whole = earlier.tokens[i] + SLACK >= prompt_tokens[j]
        changes = compare_asked(asked(i), asked(j), same=same, whole=whole)
        if sum(change.sort in ("value", "only") for _, change in changes) > MOST_CHANGES:
            continue
        for k, (path, change) in enumerate(changes):
            both = (i,) if change.sort == "only" else (i, j)  # which have it
            found.add(path, change, (i, j), {int(conversation[one]) for one in both}, (int(seen[i]), k == 0))
    most = len(np.unique(conversation))
    sites = [one for one in found.list() if len(one.conversations) >= _find_least(one, asked, len(seen), most)]
    return sorted(sites, key=lambda one: -one.estimated_tokens)


def _find_least(site, asked, n, most):
    """Return how many conversations a site needs: in what users write two are often one person who edits a text.

    A history that changes needs two, too, if the log has as many.
    """
    if site.path in (HISTORY, TEMPLATE):
        return min(most, 2) if site.path == HISTORY else 1
    if is_head(asked(site.pair[0]), site.path):
        return 2
    return 3 if site.sort in ("value", "only") else max(n // 100, 3)


def find_dated(trace, found, written):
    """Return the site of a date that the template writes, in a list; an empty one if it is the same in all prompts.

    Parameters
    ----------
    trace : Trace
    found : Estimates
    written : dict of int to str
        What the template writes of the time of each row.
    """
    if len(set(written.values())) < 2:
        return []
    site, rows = Site(sort="date", path=DATE), trace.rows.tolist()
    for i in found.seen.nonzero()[0].tolist():
        j = int(found.earlier.requests[i])
        if j >= 0 and written[rows[i]] != written[rows[j]]:
            site.parted[i] = int(found.seen[i])
            site.pair = (i, j) if site.pair[0] < 0 else site.pair
            site.both = (written[rows[i]], written[rows[j]]) if not site.both[0] else site.both
    return [site] if site.parted else []


class _Found:
    """Collects what differs; values with one label are one site."""

    def __init__(self):
        self.sites = defaultdict(list)

    def add(self, path, change, pair, conversations, seen):
        """Add what differs between a pair of requests."""
        label, _, tail = _cut(change)
        site = self._find(path, change, label, tail)
        site.places.add(change.place)
        site.conversations |= conversations
        tokens, is_first = seen
        (site.parted if is_first else site.behind).setdefault(pair[0], tokens)
        if change.sort == "order":
            site.members.add(change.unit)
        elif change.sort == "json":
            site.members |= find_orders(change.unit, change.other)
        elif change.sort == "whitespace" and _count_lines(change.unit) != _count_lines(change.other):
            site.members.add("lines")
        if change.sort == site.sort == "only" and site.label != change.unit:  # a value after all
            site.sort, (site.label, _, site.tail) = "value", cut_value(site.label, change.unit)
            site.both, site.pair = (change.unit, ""), pair
        if site.pair[0] < 0 or (change.sort == "value" and site.sort == "only"):
            site.both, site.pair = (change.unit, change.other), pair
        if change.sort == "value" and site.sort == "only":
            site.sort, site.label, site.tail = "value", label, tail

    def _find(self, path, change, label, tail):
        is_text = change.sort in ("value", "only")
        word = _WORD.search(label) or _WORD.search(tail) if is_text else None
        known = self.sites[path, "text" if is_text else change.sort, word and word[0]]
        for site in known:
            if not is_text or _is_same(site, change, label, tail):
                if change.sort == site.sort == "value":
                    site.label, site.tail = _cut_label(site.label, label), _common_end(site.tail, tail)
                return site
        known.append(Site(sort=change.sort, path=path, label=label, tail=tail))
        return known[-1]

    def list(self):
        """Return all sites."""
        return [site for some in self.sites.values() for site in some]


def _count_lines(text):
    return plain_space(f"|{text}|").count("\n")  # empty lines that begin or end it count, too


def _cut(change):
    if change.sort == "value":
        return cut_value(change.unit, change.other)
    return (change.unit, "", "") if change.sort == "only" else ("", "", "")


def _is_same(site, change, label, tail):
    """Tell whether what differs belongs to a site: it has its label, or its form where there is no label."""
    if site.sort == change.sort == "only":
        return site.label == label or is_like(site.label, label)
    if change.sort == "only":
        return _fits(site.label, site.tail, change.unit)
    if site.sort == "only":
        return _fits(label, tail, site.label)
    if has_word(label) and has_word(site.label):
        is_one = change.place in site.places and len(re.sub(r"\W", "", _cut_label(label, site.label))) >= 3
        return label.startswith(site.label) or site.label.startswith(label) or is_one
    if has_word(label) or has_word(site.label):
        return False
    if has_word(tail) and has_word(site.tail):
        return tail.endswith(site.tail) or site.tail.endswith(tail)
    return not has_word(tail + site.tail) and shape(change.unit) == shape(site.both[0]) and change.place in site.places


def _cut_label(one, other):
    """Return what two labels begin with, in whole words."""
    label = os.path.commonprefix([one, other])
    return label if one == other else widen(label, len(label), len(label))[0]


def has_word(text):
    """Tell whether a text has a letter or a digit."""
    return _WORD.search(text) is not None


def _fits(label, tail, unit):
    is_long = len(unit) >= len(label) + len(tail)
    return has_word(label + tail) and is_long and unit.startswith(label) and unit.endswith(tail)


def _common_end(one, other):
    return os.path.commonprefix([one[::-1], other[::-1]])[::-1]
