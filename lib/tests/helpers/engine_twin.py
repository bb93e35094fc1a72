"""The twin of vLLM's replay: the pool of blocks and the synchronous scheduler, token by token, in plain lists."""

import math

from hypothesis import strategies as st


class Pool:
    """The blocks of vLLM: a list of free ones, what each holds, and who holds it."""

    def __init__(self, size, block_size, legacy_free):
        self.free, self.content, self.holders = list(range(1, size)), {}, dict.fromkeys(range(size), 0)
        self.block_size, self.legacy_free, self.evictions = block_size, legacy_free, 0

    def find(self, tokens, context):
        found = []
        for end in range(self.block_size, len(tokens), self.block_size):  # never all the tokens
            equal = [block for block, held in self.content.items() if held == (context, tuple(tokens[:end]))]
            if not equal:
                break
            found.append(equal[0])  # a dict keeps the order in which contents were stored
        return found

    def admit(self, tokens, context):
        """Return (hits, block table), or None where there is no room."""
        hits = self.find(tokens, context)
        n_new = math.ceil(len(tokens) / self.block_size) - len(hits)
        if n_new + sum(block in self.free for block in hits) > len(self.free):
            return None
        self.free = [block for block in self.free if block not in hits]
        table = hits + [self.take() for _ in range(n_new)]
        for block in hits:
            self.holders[block] += 1
        for k in range(len(hits), len(tokens) // self.block_size):
            self.store(table[k], tokens[: (k + 1) * self.block_size], context)
        return len(hits), table

    def take(self):
        block = self.free.pop(0)
        self.evictions += self.content.pop(block, None) is not None
        self.holders[block] = 1
        return block

    def store(self, block, tokens, context):
        self.content[block] = (context, tuple(tokens))

    def release(self, table):
        for block in reversed(table):
            self.holders[block] -= 1
            if self.holders[block] == 0:
                to_front = block not in self.content and not self.legacy_free
                self.free.insert(0 if to_front else len(self.free), block)

    def compute(self, table, tokens, context):
        """Compute the last of the tokens: take a block if it begins one (the caller made room), store a full one."""
        if (len(tokens) - 1) % self.block_size == 0:
            table.append(self.take())
        if len(tokens) % self.block_size == 0:
            self.store(table[-1], tokens, context)


def twin_one_by_one(prompts, outputs, contexts, block_size, size, legacy_free):
    pool, hits = Pool(size, block_size, legacy_free), []
    for prompt, output, context in zip(prompts, outputs, contexts, strict=True):
        if math.ceil(len(prompt) / block_size) > size - 1:
            hits.append(-1)
            continue
        n_hits, table = pool.admit(prompt, context)
        for k in range(1, len(output)):
            if len(prompt) + k <= block_size * (size - 1):
                pool.compute(table, prompt + output[:k], context)
        pool.release(table)
        hits.append(n_hits * block_size)
    return hits, len(set(pool.content.values())), len(pool.content)


def twin_merged(prompts, outputs, contexts, block_size, size, legacy_free):
    """The same if a block whose content is cached already, when all blocks of its request are taken, holds nothing."""
    pool, hits = Pool(size, block_size, legacy_free), []
    for prompt, output, context in zip(prompts, outputs, contexts, strict=True):
        if math.ceil(len(prompt) / block_size) > size - 1:
            hits.append(-1)
            continue
        tokens = (prompt + output[:-1])[: max(block_size * (size - 1), len(prompt))]
        table = pool.find(prompt, context)
        hits.append(len(table) * block_size)
        pool.free = [block for block in pool.free if block not in table]
        for block in table:
            pool.holders[block] += 1
        table += [pool.take() for _ in range(math.ceil(len(tokens) / block_size) - len(table))]
        for k in range(hits[-1] // block_size, len(tokens) // block_size):
            content = tokens[: (k + 1) * block_size]
            if (context, tuple(content)) not in pool.content.values():
                pool.store(table[k], content, context)
        pool.release(table)
    return hits, len(set(pool.content.values())), len(pool.content)


class Scheduler:
    """vLLM's `Scheduler` without a limit on a step: `schedule`, then `update_from_output`, step by step.

    A request is a dict: its number `i`, the `tokens` it has, how many are `computed`, its block `table`, and the first
    step that `answers` with a token: of the `prefill_steps` of its prompt the last one.
    """

    def __init__(self, prompts, outputs, contexts, block_size, size, legacy_free, arrivals, prefill_steps):
        self.pool, room = Pool(size, block_size, legacy_free), block_size * (size - 1)
        self.all_tokens = [
            (prompt + (output or [None]))[: max(room, len(prompt)) + 1]  # what the last one needs is in the pool
            for prompt, output in zip(prompts, outputs, strict=True)
        ]
        self.prompts, self.contexts, self.arrivals, self.prefill_steps = prompts, contexts, arrivals, prefill_steps
        self.fits = [len(prompt) <= room for prompt in prompts]
        n = len(prompts)
        self.hits, self.admitted, self.finished, self.preemptions = [-1] * n, [-1] * n, [-1] * n, [0] * n
        self.running, self.waiting, self.step, self.n_steps, self.again = [], [], 0, 0, [0, 0]

    def run(self):
        while self.running or self.waiting or max(self.arrivals, default=-1) >= self.step:
            for i, arrival in enumerate(self.arrivals):
                if arrival == self.step and self.fits[i]:
                    self.waiting.append({"i": i, "tokens": list(self.prompts[i]), "computed": 0})
            self.schedule()
            self.n_steps += bool(self.running)
            self.update_from_output()
            self.step += 1
        return self

    def schedule(self):
        preempted, index = [], 0
        while index < len(self.running):
            request = self.running[index]
            if request["computed"] == len(request["tokens"]):
                index += 1  # its prompt is still computed: no new token
                continue
            while len(request["table"]) * self.pool.block_size < len(request["tokens"]) and not self.pool.free:
                victim = self.running.pop()
                self.pool.release(victim["table"])
                self.preemptions[victim["i"]] += 1
                victim |= {"computed": 0}
                self.waiting.insert(0, victim)
                preempted.append(victim)
                if victim is request:
                    return
            self.pool.compute(request["table"], request["tokens"], self.contexts[request["i"]])
            request["computed"] += 1
            index += 1
        while self.waiting and not preempted:
            request = self.waiting[0]
            i = request["i"]
            admission = self.pool.admit(request["tokens"], self.contexts[i])
            if admission is None:
                return
            self.running.append(self.waiting.pop(0))
            n_hits, request["table"] = admission
            request |= {"computed": len(request["tokens"]), "answers": self.step + self.prefill_steps - 1}
            if self.preemptions[i]:
                self.again[0] += len(request["tokens"])
                self.again[1] += n_hits * self.pool.block_size
            else:
                self.hits[i], self.admitted[i] = n_hits * self.pool.block_size, self.step

    def update_from_output(self):
        for request in list(self.running):
            if self.step < request["answers"]:
                continue
            i = request["i"]
            request["tokens"].append(self.all_tokens[i][len(request["tokens"])])
            if len(request["tokens"]) == len(self.all_tokens[i]):
                self.pool.release(request["table"])
                self.running.remove(request)
                self.finished[i] = self.step + 1


@st.composite
def small_runs(draw):
    """Draw prompts and outputs that often continue one another, and a pool."""
    prompts, outputs = [], []
    letters = st.lists(st.integers(0, 1), max_size=6)
    for _ in range(draw(st.integers(1, 9))):
        before = draw(st.sampled_from([[], *[a + b for a, b in zip(prompts, outputs, strict=True)]]))
        kept = before[: draw(st.integers(0, len(before)))] if draw(st.booleans()) else before
        prompts.append((kept + draw(letters))[:24] or [0])
        outputs.append(draw(letters))
    contexts = draw(st.lists(st.sampled_from(["", "", "x"]), min_size=len(prompts), max_size=len(prompts)))
    return prompts, outputs, contexts, draw(st.integers(1, 4)), draw(st.integers(2, 16)), draw(st.booleans())


def summarise(result):
    return result.hit_tokens.tolist(), result.cached_hashes, result.blocks_with_hash
