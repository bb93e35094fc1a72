"""The routers that are known: which replica serves a request. To add one, write its entry here.

A router that looks at neither caches nor load places all requests beforehand; the others have a rule in `choices`.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from kvprefix.cache.cluster.choices import COST, LOAD, LONGEST, PLACED, SCORE, TREE
from kvprefix.files.checks import check_whole
from kvprefix.files.numerals import read_number
from kvprefix.files.paths import InputError
from kvprefix.files.words import guess

KNUTH = 2654435761  # 2**32 over the golden ratio: Knuth's multiplicative hash
MOST_REPLICAS = 1024


@dataclass(frozen=True, kw_only=True)
class Router:
    """A router.

    Attributes
    ----------
    name : str
        As a command or a call takes it; with its number, as in ``hash:1024``.
    definition : str
        Where it sends a request, in a sentence.
    source : str
        Whose it is, if it is a product's.
    rule : int
        Of `choices`.
    place : callable, optional
        ``place(blocks, looked_up, replicas, seed)`` returns the replica of each request, for the rule PLACED.
    number : str, optional
        What its number is, if it has one.
    by_session : bool
        Whether it needs conversations.
    """

    name: str
    definition: str
    source: str = ""
    rule: int = PLACED
    place: Callable | None = None
    number: str | None = None
    by_session: bool = False


def place_in_turn(blocks, looked_up, replicas, seed):
    """Send the requests to one replica after the other, in arrival order."""
    return np.arange(len(blocks)) % replicas


def place_at_random(blocks, looked_up, replicas, seed):
    """Send each request to any replica."""
    draw = random.Random(seed).randrange
    return np.array([draw(replicas) for _ in range(len(blocks))], np.int64)


def place_by_session(blocks, looked_up, replicas, seed):
    """Send all requests of a conversation to one replica: its number modulo the replicas."""
    return blocks.conversation.astype(np.int64) % replicas


def place_by_hash(blocks, looked_up, replicas, seed, *, tokens):
    """Send prompts that begin alike to one replica: by the block that holds the last of their first tokens.

    Of a shorter prompt the last block counts; one without a whole block goes to replica 0.
    """
    at = np.minimum(-(-tokens // blocks.block_size), looked_up) - 1
    some, places = at >= 0, np.zeros(len(blocks), np.int64)
    places[some] = blocks.ids[(blocks.offsets[:-1] + at)[some]].astype(np.int64) * KNUTH % 2**32 % replicas
    return places


def keep_places(places):
    """Return a Router that sends the requests where they went: to replica ``places[i]``."""
    places = np.asarray(places, np.int64)
    return Router(name="given", definition="As given.", place=lambda *_: places)


ROUTERS = {
    one.name: one
    for one in (
        Router(name="rr", definition="Round robin: one replica after the other.", place=place_in_turn),
        Router(name="random", definition="Any replica, drawn with the seed.", place=place_at_random),
        Router(
            name="session", definition="All requests of a conversation to one replica: its number modulo the replicas.",
            place=place_by_session, by_session=True,
        ),
        Router(
            name="hash", number="tokens", place=place_by_hash,
            definition="Prompts that begin with the same tokens to one replica: a multiplicative hash of the block "
            "that holds the last of the first tokens (of a shorter prompt, of its last block). It knows no load.",
        ),
        Router(
            name="longest", rule=LONGEST,
            definition="The replica whose cache holds most of the prompt; of several the one with the fewest "
            "outstanding requests.",
        ),
        Router(
            name="cache-aware-tree", rule=TREE, source="SGLang's router and vLLM's: cache_aware",
            definition="If the busiest replica has over 64 outstanding requests more than the idlest, and over 1.5 "
            "times as many: the idlest. Else, if the router's own tree has over 0.3 of the prompt's blocks: the "
            "replica that got this prefix last. Else the replica with the smallest tree. The tree holds what was sent "
            "where; nobody tells it of evictions.",
        ),
        Router(
            name="cache-aware-load", rule=LOAD, source="SGLang's router and vLLM's: cache_aware",
            definition="As cache-aware-tree, but a prompt without a match goes to the replica with the fewest "
            "outstanding requests.",
        ),
        Router(
            name="dynamo", rule=COST, source="NVIDIA Dynamo's KV-aware router, weight 1",
            definition="The lowest cost: the blocks that are still to be computed there, this prompt's among them, and "
            "the blocks of all prompts that run there, this one's among them.",
        ),
        Router(
            name="llm-d", rule=SCORE, source="llm-d's inference scheduler, its default weights",
            definition="The highest score: 3 * the share of the prompt's blocks that is cached there, 2 * how few "
            "requests are outstanding there (from the busiest replica, 0, to the idlest, 1), and 2 * the share of the "
            "cache that no running prompt takes; of several the one with the fewest outstanding requests.",
        ),
    )
}  # fmt: skip


def find_router(name):
    """Return a Router by its name, or the Router that was given.

    Raises
    ------
    InputError
        A router that is not known, a number that is missing or none, or one that the router does not take.

    Examples
    --------
    >>> find_router("hash:1024").name, find_router("rr").definition
    ('hash:1024', 'Round robin: one replica after the other.')
    """
    if isinstance(name, Router):
        return name
    base, colon, text = str(name).partition(":")
    if base not in ROUTERS:
        shown = [f"{one.name}:{one.number.upper()}" if one.number else one.name for one in ROUTERS.values()]
        raise InputError(f"router {name!r} is not known; known: {', '.join(shown)}{guess(base, ROUTERS)}")
    found = ROUTERS[base]
    if found.number is None:
        if colon:
            raise InputError(f"router {name!r} has no number; expected {base}")
        return found
    if not text:
        raise InputError(f"router {name!r} lacks its number; expected {base}:N, such as {base}:1024 ({found.number})")
    expected = f"{base}:N with a whole number of {found.number}, 1 or more"
    number = check_whole(read_number(text, int), f"router {base}", expected)
    return replace(found, name=f"{base}:{number}", place=partial(found.place, **{found.number: number}))


def check_replicas(replicas):
    """Return a number of replicas, or raise InputError."""
    return check_whole(replicas, "replicas", f"a whole number, 1 to {MOST_REPLICAS}", most=MOST_REPLICAS)
