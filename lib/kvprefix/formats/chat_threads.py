"""Find out which requests of a log continue one another: the conversations, their turns and their branches.

A request continues an earlier one if its messages begin with that one's, and its next message is what the model
answered, if the log says what that was. If the log says who asked, both must have the same asker.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np


@dataclass(frozen=True)
class Threads:
    """Which request continues which.

    Attributes
    ----------
    previous : (n,) ndarray of int64
        The request that each one continues, always an earlier one; -1 for none.
    conversation : (n,) ndarray of int64
        0, 1, ... as first seen.
    names : list of str
        Of the conversations: the log's own, else that of their first request.
    turn : (n,) ndarray of int64
        The log's own, else 0-based, counted on from the previous request's.
    """

    previous: np.ndarray
    conversation: np.ndarray
    names: list
    turn: np.ndarray


class Chain(NamedTuple):
    """The requests from a conversation's first to one that none continues, as `encode_conversations` takes them.

    Attributes
    ----------
    id : str
    messages : tuple of Message
        Of the last request, and its reply if that is known.
    path : list of int
        The requests.
    ends : list of int
        How many of the messages each request's prompt holds, ascending.
    """

    id: str
    messages: tuple
    path: list
    ends: list

    def request_ends(self):
        """Return the number of messages of each request."""
        return self.ends


def thread_requests(requests):
    """Find the conversations of a log.

    Parameters
    ----------
    requests : list of Logged
        In arrival order.

    Returns
    -------
    Threads

    Notes
    -----
    The messages of all requests are walked down one tree, message by message. Of several earlier requests that fit, the
    one with the most messages is taken; of these, the last one that none continues yet, else the last.
    """
    steps, waiting, latest = {}, {}, {}
    previous = [-1] * len(requests)
    for i, request in enumerate(requests):
        node, found, who = 0, None, request.asker
        for message in request.messages:
            if node:
                answer = message.text if message.role == "assistant" else None
                keys = [(node, who, answer), (node, who, None)]
                found = next((key for key in keys if key in latest), found)
            node = steps.setdefault((node, message), len(steps) + 1)
        if found:
            previous[i] = waiting[found].pop() if waiting[found] else latest[found]
        end = node, who, request.reply
        latest[end] = i
        waiting.setdefault(end, []).append(i)
    return _number(requests, previous)


def _number(requests, previous):
    """Number the conversations and their turns."""
    conversation, turns, names, known, seen = [], [], [], {}, []
    for i, request in enumerate(requests):
        before, given = previous[i], request.asker
        if given and given[0] == "conversation_id":
            number, name = known.setdefault(given, len(names)), given[1]
        else:
            number, name = (conversation[before] if before >= 0 else len(names)), request.name
        if number == len(names):
            names.append(name)
            seen.append(0)
        counted = seen[number] if given and given[0] == "conversation_id" else turns[before] + 1 if before >= 0 else 0
        conversation.append(number)
        turns.append(counted if request.turn is None else request.turn)
        seen[number] += 1
    return Threads(np.array(previous, np.int64), np.array(conversation, np.int64), names, np.array(turns, np.int64))


def make_chains(requests, previous):
    """Return a chain for each request that none continues, in arrival order of their last requests.

    Parameters
    ----------
    requests : list of Logged
    previous : (n,) ndarray of int64
        As in `Threads`. Requests before a branch are in several chains.
    """
    chains, continued = [], set(previous.tolist())
    for i in range(len(requests)):
        if i not in continued:
            path = [i]
            while previous[path[-1]] >= 0:
                path.append(int(previous[path[-1]]))
            chains.append(make_chain(requests, path[::-1]))
    return chains


def make_chain(requests, path):
    """Return the chain of some requests, each of which continues the one before it."""
    last = requests[path[-1]]
    messages = last.messages
    if last.reply is not None:
        messages += (type(messages[0])("assistant", last.reply),)
    return Chain(last.name, messages, path, [len(requests[i].messages) for i in path])
