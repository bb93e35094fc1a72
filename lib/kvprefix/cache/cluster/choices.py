"""How routers choose a replica that depends on what the replicas hold and do: compiled, a choice per request.

Ties go to the replica with the fewest outstanding requests where these are a part of the rule, then to the lowest
index.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

PLACED, LONGEST, TREE, LOAD, COST, SCORE = range(6)  # the rules; PLACED: it is known beforehand
MATCH_SHARE = 0.3  # of a prompt's blocks, from which on a router's own tree decides
MOST_APART, MOST_TIMES = 64, 1.5  # outstanding requests of the busiest replica over those of the idlest: imbalanced
PREFIX, QUEUE, FREE = 3.0, 2.0, 2.0  # the weights of SCORE


class Fleet(NamedTuple):
    """What a router knows of each replica, (replicas,) ndarrays.

    Attributes
    ----------
    found, matches : ndarrays of int64
        Leading blocks of the present request that the replica holds, all and those of its prompt.
    outstanding, active_blocks : ndarrays of int64
        Requests that still run there, and their prompts' blocks, partial ones too.
    prefilling : ndarray of int64
        Prompt tokens that are computed there.
    tree_blocks : ndarray of int64
        Distinct blocks that the router sent there.
    """

    found: np.ndarray
    matches: np.ndarray
    outstanding: np.ndarray
    active_blocks: np.ndarray
    prefilling: np.ndarray
    tree_blocks: np.ndarray


class Tree(NamedTuple):
    """A router's own tree, which is never told of evictions.

    Attributes
    ----------
    latest : (n_distinct,) ndarray of int32
        One more than the replica that got a block last, 0 if none did.
    sent : (replicas, n_distinct) ndarray of bool
        Whether a replica got a block.
    """

    latest: np.ndarray
    sent: np.ndarray


def make_fleet(replicas):
    """Make the Fleet of idle replicas."""
    return Fleet(*(np.zeros(replicas, np.int64) for _ in Fleet._fields))


def make_tree(rule, replicas, n_distinct):
    """Make an empty Tree; it has no room if the rule does not ask it."""
    n = n_distinct if rule in (TREE, LOAD) else 0
    return Tree(np.zeros(n, np.int32), np.zeros((replicas, n), np.bool_))


@njit(cache=True, nogil=True)
def choose(rule, fleet, tree, trace, now):
    """Return the replica that a rule chooses for a request."""
    outstanding = fleet.outstanding
    if rule == LONGEST:
        return find_least(-fleet.matches, outstanding)
    if rule == COST:
        costs = cost_each(fleet, trace, now)
        return find_least(costs, costs)
    if rule == SCORE:
        return find_least(-score_each(fleet, trace, now), outstanding)
    most, least = outstanding.max(), outstanding.min()
    if most - least > MOST_APART and most > MOST_TIMES * least:
        return find_least(outstanding, outstanding)
    path, k = trace.ids[trace.offsets[now] : trace.offsets[now] + trace.looked_up[now]], 0
    while k < len(path) and tree.latest[path[k]]:
        k += 1
    if k > 0 and k / len(path) > MATCH_SHARE:
        return tree.latest[path[k - 1]] - 1
    loads = fleet.tree_blocks if rule == TREE else outstanding
    return find_least(loads, loads)


@njit(cache=True, nogil=True)
def find_least(costs, ties):
    """Return the first replica of the lowest cost; of several, one of the lowest `ties`."""
    best = 0
    for replica in range(1, len(costs)):
        if costs[replica] < costs[best] or (costs[replica] == costs[best] and ties[replica] < ties[best]):
            best = replica
    return best


@njit(cache=True, nogil=True)
def cost_each(fleet, trace, now):
    """Return Dynamo's cost of each replica: blocks to compute, and blocks that are in use."""
    costs, blocks = np.empty(len(fleet.matches)), -(-trace.prompt_tokens[now] // trace.block_size)
    for replica in range(len(costs)):
        computed = trace.prompt_tokens[now] - save_tokens(trace, now, fleet.matches[replica])
        prefill = (fleet.prefilling[replica] + computed) / trace.block_size
        costs[replica] = prefill + (fleet.active_blocks[replica] + blocks)
    return costs


@njit(cache=True, nogil=True)
def score_each(fleet, trace, now):
    """Return llm-d's score of each replica: prefix, queue, and free cache, each from 0 to 1, weighted."""
    scores, n = np.empty(len(fleet.matches)), trace.looked_up[now]
    most, least = fleet.outstanding.max(), fleet.outstanding.min()
    for replica in range(len(scores)):
        prefix = fleet.matches[replica] / n if n else 0.0
        queue = (most - fleet.outstanding[replica]) / (most - least) if most > least else 1.0
        free = 1 - fleet.active_blocks[replica] / trace.capacity
        scores[replica] = PREFIX * prefix + QUEUE * queue + FREE * free
    return scores


@njit(cache=True, nogil=True)
def save_tokens(trace, now, blocks):
    """Return the tokens that leading blocks of a prompt save."""
    is_all = blocks == trace.looked_up[now] and blocks > 0
    return (blocks - 1) * trace.block_size + trace.last_weight[now] if is_all else blocks * trace.block_size


@njit(cache=True, nogil=True)
def send(fleet, tree, trace, now, own):
    """Take note in the router's tree of what it sent to a replica."""
    for k in range(trace.offsets[now], trace.offsets[now] + trace.looked_up[now]):
        block = trace.ids[k]
        tree.latest[block] = own + 1
        fleet.tree_blocks[own] += not tree.sent[own, block]
        tree.sent[own, block] = True
