"""Find the messages of calls that were sent in another form before, or generated in another form."""

import operator

from kvprefix.explain.advice.bodies import role_of
from kvprefix.explain.advice.differ import HISTORY
from kvprefix.explain.advice.sites import Site


def add_history(sites, prover, found):
    """Return sites with the history as one, if a call sends a message or a reply in another form than it was before.

    The call before is that of the conversation, even if another conversation's prompt begins with more alike tokens.

    Parameters
    ----------
    sites : list of Site
    prover : Prover
        Of calls.
    found : Estimates
    """
    site = next((one for one in sites if one.path == HISTORY), None) or Site(sort="history", path=HISTORY)
    offsets, rows, last, parted = prover.trace.tokens.output_offsets, prover.trace.rows, {}, {}
    for i in range(len(rows)):
        key = prover.key(i)
        conversation, messages = prover.conversation(key), prover.asked(key).messages
        j, before = last.get(conversation, (-1, []))
        put = restore(messages, before, prover.reply(prover.key(j)) if j >= 0 else "")
        if put:
            is_reply = min(put) == len(before)
            parted[i] = int(offsets[rows[j] + 1] - offsets[rows[j]] if is_reply else found.seen[i])
            site.conversations.add(conversation)
            site.pair = (i, j) if site.pair[0] < 0 else site.pair
        last[conversation] = i, messages
    if not parted or len(site.conversations) < min(len(set(map(prover.conversation, prover.keys))), 2):
        return sites
    site.parted = {**parted, **site.parted}
    return [one for one in sites if one is not site] + [site]


def restore(sent, before, reply):
    """Return the messages of a call that are other than in the call before, as they were there, by their numbers.

    Parameters
    ----------
    sent, before : list
        Messages of both calls; none are put back if some are gone, or are another's.
    reply : str
        What was generated for the call before; empty if it is not cached.
    """
    other = [k for k, same in enumerate(map(operator.is_, before, sent)) if not same]
    if not before or len(sent) < len(before) or any(role_of(sent[k]) != role_of(before[k]) for k in other):
        return {}
    first = next((k for k in other if sent[k] != before[k]), None)
    if first is not None and _is_shifted(sent, before, first):
        return {}
    put = {k: before[k] for k in other if role_of(sent[k]) != "system"}
    if reply and len(before) < len(sent):
        put[len(before)] = restore_reply(sent[len(before)], reply)
    return {k: one for k, one in put.items() if one != sent[k]}


def _is_shifted(sent, before, first):
    """Tell whether messages were left out at a place, so that the rest of those before stands there now."""
    return any(
        before[k] == sent[first] and before[k:] == sent[first : first + len(before) - k]
        for k in range(first + 1, len(before))
    )


def restore_reply(message, said):
    """Return a message with a reply as it was generated, if it is the same but for space or a part left out.

    >>> restore_reply({"role": "assistant", "content": "So it is."}, " <think>Hm.</think> So  it is. ")
    {'role': 'assistant', 'content': ' <think>Hm.</think> So  it is. '}
    """
    content = message.get("content") if isinstance(message, dict) and role_of(message) == "assistant" else None
    if not isinstance(content, str) or not content.strip() or message.get("tool_calls"):
        return message
    return {**message, "content": said} if "".join(content.split()) in "".join(said.split()) else message
