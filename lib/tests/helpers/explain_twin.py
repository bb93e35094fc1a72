"""Origins and causes again in plain Python, token by token, and random small chats for them. Nothing here is fast."""

from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pandas as pd
from hypothesis import strategies as st

from kvprefix.explain.said import Runs, read_said
from kvprefix.tokens.arrays import Tokens
from kvprefix.tokens.marks import BY_ROLE, TEMPLATE
from kvprefix.tokens.messages import make_messages
from kvprefix.traces.trace import Trace, number_contexts

BEGIN, DATED, USER, ASSISTANT, SYSTEM, END, THINK = range(7)  # tokens that the template writes; 7 and 8 are texts
HEADS = {"system": SYSTEM, "user": USER, "assistant": ASSISTANT, "tool": USER}


class Template(NamedTuple):
    """How prompts of a chat are written.

    `joins` puts results of tools that follow one another behind one head, `tools` is a text before all messages if none
    is a system's, `hides` says that the template's own text is that of the system message, and `stamp` stands before
    the last message, as the template's own.
    """

    first: int
    joins: bool = False
    tools: tuple = ()
    hides: bool = False
    stamp: tuple = ()

    @property
    def is_of_calls(self):
        """Whether runs of tokens do not tell which message they are of: the making of the prompt must."""
        return self.joins or bool(self.tools)


class Request(NamedTuple):
    """A request as the twin sees it."""

    conversation: int
    turn: int
    prompt: list
    output: list
    writers: list  # of each prompt token: "template" or a role
    runs: list | None  # (stop, message, role) of each run of tokens of one message; None if the flags tell
    messages: list  # (role, text) of each message in the prompt, and where its text ends
    reply: tuple | None
    everything: tuple  # all messages of the conversation
    context: str | None
    replica: int


def render(messages, template):
    """Return a prompt, the writer and the message of each token, and where the text of each message ends.

    A message that is the template's own text has no end; the one before has, if there is one. Messages count from 1 on;
    0 is the text of tools, -1 what is of none.
    """
    tokens, writers, said, ends = [template.first], ["template"], [-1], []

    def write(texts, writer, message):
        tokens.extend(texts)
        writers.extend([writer] * len(texts))
        said.extend([message] * len(texts))

    if template.tools and messages[0][0] != "system":
        write([SYSTEM], "template", -1)
        write(template.tools, "system", 0)
        write([END], "template", -1)
    for place, (role, text) in enumerate(messages):
        roles = [messages[place - 1][0] if place else "", *(one[0] for one in messages[place + 1 : place + 2])]
        after, before = (template.joins and one == "tool" == role for one in [*roles, ""][:2])
        writer = "template" if template.hides and place == 0 and role == "system" else role
        write(template.stamp if place == len(messages) - 1 and not after else (), "template", -1)
        write([] if after else [HEADS[role]], "template", -1)
        write(text, writer, place + 1)
        ends.append((ends[-1] if ends else 0) if writer == "template" else len(tokens))
        write([] if before else [END], "template", -1)
    write([ASSISTANT], "template", -1)
    return tokens, writers, said, ends


def list_runs(said, messages):
    """Return where runs of tokens of one message end, the message, and its role."""
    last = [k for k in range(len(said)) if k + 1 == len(said) or said[k] != said[k + 1]]
    return [(k + 1, said[k], {-1: "template", 0: "system"}.get(said[k]) or messages[said[k] - 1][0]) for k in last]


TEXTS = st.lists(st.sampled_from([7, 8]), min_size=1, max_size=3).map(tuple)


@st.composite
def small_chats(draw):
    """Draw requests of a few chats in arrival order: some chats repeat others, some templates rewrite the history."""
    talks, requests = [], []
    for number in range(draw(st.integers(1, 4))):
        talk = draw(st.sampled_from(talks)) if talks and draw(st.booleans()) else []
        talk = talk[: draw(st.integers(0, len(talk)))] if draw(st.booleans()) else list(talk)
        if not talk and draw(st.booleans()):
            talk = [("system", draw(TEXTS))]
        for _ in range(draw(st.integers(0 if len(talk) > 1 else 1, 2))):
            results = [("tool", text) for text in draw(st.lists(TEXTS, max_size=2))]
            talk = [*talk, ("user", draw(TEXTS)), *[("assistant", draw(TEXTS)), *results] * bool(results)]
            talk = [*talk, ("assistant", draw(TEXTS))]
        talk = talk[: len(talk) - (len(talk) > 1 and talk[-2][0] == "user" and draw(st.booleans()))]
        talks.append(talk)
        way = Template(
            BEGIN, draw(st.booleans()), draw(st.sampled_from([(), (8, 7)])), draw(st.booleans()),
            draw(st.sampled_from([(), (), (DATED,)])),
        )  # fmt: skip
        thinks, salted = draw(st.booleans()), draw(st.sampled_from([None, None, "salt"]))
        ends = [k + 1 for k, (role, _) in enumerate(talk) if role == "user"]
        for turn, end in enumerate(ends):
            first = draw(st.sampled_from([BEGIN, BEGIN, BEGIN, DATED]))
            prompt, writers, said, stops = render(talk[:end], way._replace(first=first))
            reply = talk[end] if end < len(talk) else None
            output = [] if reply is None else [*[THINK] * thinks, *reply[1], END]
            runs, ended = list_runs(said, talk) if way.is_of_calls else None, list(zip(talk[:end], stops, strict=True))
            requests.append(Request(
                number, turn, prompt, output, writers, runs, ended, reply, tuple(talk), salted, draw(st.integers(0, 2))
            ))  # fmt: skip
    return [requests[k] for k in draw(st.permutations(range(len(requests))))] if draw(st.booleans()) else requests


def share_prefix(one, other):
    """Return how many leading elements are equal."""
    return next((k for k, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def make_library_form(requests):
    """Return the Trace and the Said of some requests; rows stand by conversation and turn, each on the turn before."""
    order = sorted(range(len(requests)), key=lambda k: requests[k][:2])
    rows = [requests[k] for k in order]
    parent, shared = [], []
    for row, one in enumerate(rows):
        continues = row > 0 and rows[row - 1].conversation == one.conversation
        parent.append(row - 1 if continues else -1)
        shared.append(share_prefix(*map(_spread, rows[row - 1 : row + 1])) if continues else 0)
    own = [one.prompt[n:] for one, n in zip(rows, shared, strict=True)]
    flags = [[writer == "template" for writer in one.writers[n:]] for one, n in zip(rows, shared, strict=True)]
    outputs = [one.output for one in rows]
    tokens = Tokens(
        np.array(parent), np.array(shared), _offsets(own), np.array(sum(own, []), np.int32),
        np.array(sum(flags, []), bool), _offsets(outputs), np.array(sum(outputs, []), np.int32),
    )  # fmt: skip
    table = pd.DataFrame({
        "request_id": [f"c{one.conversation}t{one.turn}" for one in rows],
        "conversation_index": [one.conversation for one in rows], "conversation_id": "",
        "turn": [one.turn for one in rows],
        "arrival_s": 0.0, "prompt_tokens": [len(one.prompt) for one in rows],
        "output_tokens": [len(one.output) for one in rows], "messages": [len(one.messages) for one in rows],
    })  # fmt: skip
    talks = [()] * (1 + max(one.conversation for one in rows))
    for one in rows:
        talks[one.conversation] = [(role, " ".join(map(str, text))) for role, text in one.everything]
    said = read_said(SimpleNamespace(messages=make_messages(talks), requests=table, tokens=tokens))
    said = said._replace(runs=_make_runs(rows))
    places = np.argsort(order)
    arrived = table.iloc[places].assign(arrival_s=np.arange(len(rows)) / 4).reset_index(drop=True)
    contexts = number_contexts([one.context for one in requests])
    return Trace(arrived, places, tokens, {}, contexts), said


def _spread(request):
    """Return a prompt's tokens, each with the message that it is of."""
    of = [request.runs and message for message in _list_messages(request)]
    return list(zip(request.prompt, of, strict=True))


def _list_messages(request):
    runs = request.runs or [(len(request.prompt), None, None)]
    return [next(message for stop, message, _ in runs if k < stop) for k in range(len(request.prompt))]


def _make_runs(rows):
    """Return the Runs of requests that have them."""
    runs = [one.runs or [] for one in rows]
    flat = [run for some in runs for run in some]
    writers = [{"template": TEMPLATE, **BY_ROLE}[role] for _, _, role in flat]
    is_there = np.array([bool(some) for some in runs])
    stops, messages = (np.array([run[k] for run in flat], np.int64) for k in range(2))
    return Runs(is_there, is_there.copy(), _offsets(runs), stops, messages, np.array(writers, np.int8))


def _offsets(lists):
    return np.cumsum([0, *map(len, lists)])


def kept(request, outputs):
    """Return the tokens whose KV is computed: the prompt and, with outputs, the reply without its last token."""
    return request.prompt + (request.output[:-1] if outputs else [])


def list_blocks(request, tokens, block_size):
    """Return the keys of the full blocks of some tokens."""
    return [(request.context, tuple(tokens[:end])) for end in range(block_size, len(tokens) + 1, block_size)]


class Cache:
    """A bounded cache on prefixes; nothing is evicted if its capacity is None."""

    def __init__(self, capacity):
        self.capacity, self.used, self.seen = capacity, {}, {}

    def look_up(self, blocks):
        return next((n for n, block in enumerate(blocks) if block not in self.used), len(blocks))

    def find_leaves(self, pinned):
        inner = {_above(block, self.used) for block in self.used}
        return [block for block in self.used if block not in inner and block not in pinned]

    def serve(self, blocks, now, following):
        """Look up and store a request's blocks; return how many it hit, and the blocks that were stored anew."""
        hit = self.look_up(blocks)
        for block in blocks:
            self.seen.setdefault(block, len(self.seen))
        for block in blocks[:hit]:
            self.used[block] = now
        stored = []
        for block in blocks[hit:]:
            if not self.make_room(block, blocks, now, following):
                break
            self.used[block] = now
            stored.append(block)
        return hit, stored

    def make_room(self, block, blocks, now, following):
        if self.capacity is None or len(self.used) < self.capacity:
            return True
        leaves = self.find_leaves(set(blocks))
        if leaves:
            del self.used[min(leaves, key=lambda one: (self.used[one], -len(one[1]), self.seen[one]))]
        return bool(leaves)


def _above(block, resident):
    """Return the resident block before a block, whatever the block size."""
    context, tokens = block
    above = ((context, tokens[:n]) for n in range(len(tokens) - 1, 0, -1))
    return next((one for one in above if one in resident), None)


class Optimum(Cache):
    """Belady's MIN with bypass; `following` gives the next request that looks a block up."""

    def make_room(self, block, blocks, now, following):
        if following(block) == float("inf"):
            return False
        if len(self.used) < self.capacity:
            return True
        leaves = self.find_leaves(())
        victim = max(leaves, key=lambda one: (following(one), len(one[1]))) if leaves else None
        if victim is None or following(victim) <= following(block):
            return False
        del self.used[victim]
        return True


def replay_all(requests, block_size, outputs, capacity, make, replicas=1):
    """Return by request the blocks hit on its replica, those resident on any, and those stored anew."""
    caches, found = [make(capacity) for _ in range(replicas)], []
    prompts = [list_blocks(one, one.prompt, block_size) for one in requests]
    for i, one in enumerate(requests):
        own = one.replica if replicas > 1 else 0

        def following(block, now=i, own=own):
            later = (k for k in range(now + 1, len(requests)) if replicas == 1 or requests[k].replica == own)
            return next((k for k in later if block in prompts[k]), float("inf"))

        anywhere = max(cache.look_up(prompts[i]) for cache in caches)
        hit, stored = caches[own].serve(list_blocks(one, kept(one, outputs), block_size), i, following)
        found.append((min(hit, len(prompts[i])), anywhere, stored))
    return found


def class_tokens(requests, block_size, outputs, capacity, replicas=1):
    """Return the classes of each request's prompt tokens, by name, those that are not 0."""
    lru = replay_all(requests, block_size, outputs, capacity, Cache, replicas)
    best = lru if capacity is None else replay_all(requests, block_size, outputs, capacity, Optimum, replicas)
    return [
        _class_request(requests[:i], one, block_size, outputs, (lru[i][0], lru[i][1], best[i][0]))
        for i, one in enumerate(requests)
    ]


def _class_request(earlier, one, block_size, outputs, hits):
    prompt, most = one.prompt, max(len(one.prompt) - 1, 0)

    def longest(texts):
        return max((share_prefix(prompt, text) for text in texts), default=0)

    stored = longest(kept(other, outputs) for other in earlier if other.context == one.context)
    levels = {
        "hit": hits[0] * block_size, "routing": hits[1] * block_size, "policy": hits[2] * block_size,
        "capacity": stored // block_size * block_size,
    }  # fmt: skip
    levels = {name: min(n, most // block_size * block_size) for name, n in levels.items()}
    levels["sub_block"] = stored
    levels["isolation"] = longest(kept(other, outputs) for other in earlier)
    levels["generated_not_cached"] = longest(kept(other, True) for other in earlier)
    levels["last_sampled_token"] = longest(other.prompt + other.output for other in earlier)
    levels["template_divergence"] = max((_known_text(other, one) for other in earlier), default=0)
    parts, reached = {}, 0
    for name, level in levels.items():
        parts[name] = max(min(level, most) - reached, 0)
        reached = max(reached, min(level, most))
    parts["sub_block_tail" if stored >= len(prompt) else "sub_block_inside"] = parts.pop("sub_block")
    parts["last_token"] = int(bool(prompt) and max(levels.values()) >= len(prompt))
    parts["cold"] = len(prompt) - sum(parts.values())
    return {name: n for name, n in parts.items() if n}


def _known_text(other, one):
    said = [message for message, _ in other.messages] + [other.reply] * (other.reply is not None)
    known = share_prefix([message for message, _ in one.messages], said)
    return one.messages[known - 1][1] if known else 0


def originate_tokens(requests, block_size, outputs, capacity=None):
    """Return by request the parts of its prompt by origin, those that are not 0."""
    found, copies, parts = replay_all(requests, block_size, outputs, capacity, Cache), {}, []
    for one, (hit, _, stored) in zip(requests, found, strict=True):
        counted, blocks = {}, list_blocks(one, kept(one, outputs), block_size)
        for place in range(min(hit, max(len(one.prompt) - 1, 0) // block_size)):
            for writer in one.writers[place * block_size : (place + 1) * block_size]:
                name = _name_origin(writer, one, *copies[blocks[place]])
                counted[name] = counted.get(name, 0) + 1
        for block in blocks:
            if block in stored:
                copies[block] = one, {one.conversation}
            elif block in copies:
                copies[block][1].add(one.conversation)
        counted["uncached"] = len(one.prompt) - sum(counted.values())
        parts.append({name: n for name, n in counted.items() if n})
    return parts


def _name_origin(writer, one, maker, holders):
    if writer in ("template", "system"):
        return {"template": "template", "system": "system_prompt"}[writer]
    if one.conversation in holders:
        return "own_turns"
    return "duplicate" if maker.everything == one.everything else "other_conversation"
