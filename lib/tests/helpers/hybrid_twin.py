"""The twin of vLLM's replay for hybrid models: every step of every request, in plain lists and tuples."""

import math

from hypothesis import strategies as st

from kvprefix.engines.groups import Group


class HybridTwin:
    """One pool, groups as `Group`s. A key is (group, all tokens up to a block's end)."""

    def __init__(self, groups, size, retention=0, drop=False, step_tokens=8192):
        self.groups, self.retention, self.drop, self.step_tokens = groups, retention, drop, step_tokens
        self.starts = {}  # of chunks: the blocks before count as there
        self.keys = {}  # what each block holds, in the order of storing
        self.free, self.evictions, self.outputs_cut = list(range(1, size)), 0, 0
        self.unit = math.lcm(*[group.block_size for group in groups])
        self.hashed = math.gcd(*[group.block_size for group in groups])
        kinds = list(dict.fromkeys(groups))
        self.kinds = [kind for kind in kinds if kind.kind == "full"] + [kind for kind in kinds if kind.kind != "full"]

    # ---- Lookup

    def find(self, group, tokens, i):
        """Return the oldest blocks with block i of a kind of group, one per group, or None if one has none."""
        found = []
        for g, one in enumerate(self.groups):
            if one == group:
                key = (g, tuple(tokens[: (i + 1) * group.block_size]))
                equal = [block for block, held in self.keys.items() if held == key]
                if not equal:
                    return None
                found.append(equal[0])
        return found

    def hit_of(self, group, tokens, most, drop):
        size = group.block_size
        there = [self.find(group, tokens, i) is not None for i in range(max(most, 0) // size)]
        if group.kind == "full":
            n = (there + [False]).index(False)
            hit = max(n - drop, 0) * size
            return hit // self.unit * self.unit
        if group.kind == "chunk":
            start = max(most, 0) // group.span * group.span // size
            n = self.starts[group] = start
            while n < len(there) and there[n]:
                n += 1
            return n * size
        if group.kind == "state":
            ends = [(i + 1) * size for i, one in enumerate(there) if one and (i + 1) * size % self.unit == 0]
            return max(ends, default=0)
        need = math.ceil((group.span - 1) / size) + drop
        for end in range(len(there), 0, -1):
            enough = end >= max(need, 1) and all(there[end - max(need, 1) : end])
            if enough and (end - drop) * size % self.unit == 0:
                return (end - drop) * size
        run = (there + [False]).index(False)  # fewer than it needs, from the start on
        run = max((end for end in range(1, run + 1) if (end - drop) * size % self.unit == 0), default=0)
        hit = run * size // self.unit * self.unit
        return (hit - size * (drop and hit > 0)) // self.unit * self.unit

    def look_up(self, tokens):
        """Return the hit and the junction."""
        if len(self.groups) == 1:
            return self.hit_of(self.groups[0], tokens, len(tokens) - 1, self.drop), 0
        hit, longest, full, dropped = len(tokens) - 1, 0, {}, set()
        while True:
            now = hit
            for kind in self.kinds:
                if kind in full:
                    now = min(now, full[kind])
                    continue
                drop, most = self.drop and kind not in dropped, now
                if drop and kind.kind != "state":
                    most = min(now + kind.block_size, len(tokens) // self.hashed * self.hashed)
                new = self.hit_of(kind, tokens, most, drop)
                if drop:
                    dropped.add(kind)
                elif new < now:
                    dropped.clear()
                now = new
                if kind.kind == "full":
                    full[kind] = new
                longest = max(longest, now)
            if now >= hit:
                break
            hit = now
            if len(self.kinds) == 2 and self.kinds[0].kind == "full":
                break
        return hit, longest if longest > hit else 0

    # ---- Blocks

    def release(self, blocks):
        """Free blocks, given in the order in which they are to be evicted."""
        open_ones = [block for block in blocks if block and block not in self.keys]
        self.free = open_ones + self.free + [block for block in blocks if block and block in self.keys]

    def take(self):
        block = self.free.pop(0)
        self.evictions += self.keys.pop(block, None) is not None
        return block

    def skipped(self, group, computed):
        tokens = {
            "full": lambda: 0, "window": lambda: max(0, computed - group.span + 1),
            "chunk": lambda: computed // group.span * group.span, "state": lambda: max(0, computed - 1),
        }  # fmt: skip
        return tokens[group.kind]() // group.block_size

    def keeps(self, group, i, prompt, junction):
        """Whether block i of a group is kept."""
        size, drop = group.block_size, self.drop
        if group.kind in ("full", "chunk") or (group.kind == "state" and self.retention is None):
            return True
        need = math.ceil((group.span - 1) / size) + drop if group.kind == "window" else 1
        shift = drop if group.kind == "window" else 0
        segment = self.unit if self.retention is None else self.retention
        if segment:
            per = segment // size
            if need >= per or (i >= shift and (i - shift) % per >= per - need):
                return True
        if self.retention is None:
            return False
        ends = [prompt - 1]
        if drop:
            ends = [max(p // self.unit * self.unit - self.unit, 0) for p in (prompt - 1, prompt)]
        ends += [junction] if junction else []
        stops = [end // self.unit * self.unit // size + shift for end in ends]
        return any(stop - need <= i < stop for stop in stops)

    # ---- Requests

    def chunk(self, start, prompt, junction):
        """Return where a prompt's next step ends."""
        end = min(prompt, start + self.step_tokens)
        sizes = [group.block_size for group in self.groups if group.kind == "state"]
        if not sizes:
            return end
        size = sizes[0]
        if end < prompt and (end // size * size > start or size <= self.step_tokens):
            end = end // size * size
        last = max(prompt // size * size - size, 0) if self.drop else (prompt - 1) // size * size
        stops = [last]
        if start % size:
            stops.append((start // size + 1) * size)
        if start < junction < end:
            stops.append(start + (junction - start) // size * size)
        return min((stop for stop in stops if start < stop < end), default=end)

    def extend(self, tables, tokens, seen, start, end, prompt, junction):
        """Compute the tokens [start, end); return False if there is no room. Hits are in the tables."""
        for group, table in zip(self.groups, tables, strict=True):
            past = table[: self.skipped(group, start)]
            self.release(past[::-1])
            table[: len(past)] = [0] * len(past)
        wanted = [math.ceil(end / group.block_size) for group in self.groups]
        new = [max(n - len(table), 0) for n, table in zip(wanted, tables, strict=True)]
        new = [min(n, 1) if group.kind == "state" else n for n, group in zip(new, self.groups, strict=True)]
        if sum(new) > len(self.free):
            return False
        for n, w, table in zip(new, wanted, tables, strict=True):
            table += [0] * (w - n - len(table)) + [self.take() for _ in range(n)]
        for g, (group, table) in enumerate(zip(self.groups, tables, strict=True)):
            upto = end
            if len(self.groups) > 1:
                upto = end // self.unit * self.unit
                if self.drop and upto:
                    upto = min(end, upto + group.block_size)
            for i in range(seen[g], upto // group.block_size):
                if table[i] and self.keeps(group, i, prompt, junction):
                    self.keys.pop(table[i], None)
                    self.keys[table[i]] = (g, tuple(tokens[: (i + 1) * group.block_size]))
            seen[g] = max(seen[g], upto // group.block_size)
            if self.drop:
                self.note_tail(g, table, tokens, upto, prompt)
        return True

    def note_tail(self, g, table, tokens, upto, prompt):
        """Give a key to the block in which the prompt's last unit ends, or to the state a unit before that."""
        group, end = self.groups[g], prompt // self.hashed * self.hashed
        if group.kind == "state":
            end -= self.hashed
            found = 0 < end == upto
        else:
            found = group.kind == "full" and end % group.block_size and end <= upto
        i = (end - 1) // group.block_size
        if found and i < len(table) and table[i] and table[i] not in self.keys:
            self.keys[table[i]] = (g, tuple(tokens[:end]))

    def admit(self, tokens, hit, junction):
        """Return the tables with the hits, or None if the prompt does not fit."""
        end, tables, needed, all_needed = self.chunk(hit, len(tokens), junction), [], 0, 0
        for g, group in enumerate(self.groups):
            n, skip = math.ceil(hit / group.block_size), max(self.skipped(group, hit), self.starts.get(group, 0))
            blocks = [0] * min(skip, n)
            for i in range(skip, n):
                key = (g, tuple(tokens[: (i + 1) * group.block_size]))
                blocks.append(next(block for block, held in self.keys.items() if held == key))
            tables.append(blocks)
            cap = {"window": lambda one: math.ceil((one.span - 1 + self.step_tokens) / one.block_size) + 1,
                   "chunk": lambda one: math.ceil((one.span + self.step_tokens) / one.block_size)}  # fmt: skip
            most = math.ceil(len(tokens) / group.block_size)
            most = min(most, cap[group.kind](group)) if group.kind in cap else most
            news = [max(w - n, 0) for w in (math.ceil(end / group.block_size), most)]
            news = [min(w, 1) for w in news] if group.kind == "state" else news
            hits = n - len(blocks[:skip])
            needed, all_needed = needed + news[0] + hits, all_needed + news[1] + hits
        if end == hit or max(needed, all_needed) > len(self.free):
            return None
        held = {block for table in tables for block in table}
        self.free = [block for block in self.free if block not in held]
        return tables

    def run(self, prompt, output):
        """Return the hit tokens of a request, -1 if it never fits."""
        hit, junction = self.look_up(prompt)
        tables = self.admit(prompt, hit, junction)
        if tables is None:
            return -1
        tokens, seen, done = prompt + output, [len(table) for table in tables], hit
        wanted = len(prompt) + max(len(output) - 1, 0)
        while done < wanted:
            end = self.chunk(done, len(prompt), junction) if done < len(prompt) else done + 1
            if not self.extend(tables, tokens, seen, done, end, len(prompt), junction):
                break
            done = end
        for table in tables:
            self.release(table[::-1])
        self.outputs_cut += len(prompt) <= done < wanted
        return hit if done >= len(prompt) else -1

    def count(self):
        """Return the blocks that hold a key, per group."""
        return [sum(key[0] == g for key in self.keys.values()) for g in range(len(self.groups))]


@st.composite
def hybrid_models(draw):
    """Draw groups that go together, and whether the last unit is dropped."""
    size = draw(st.integers(1, 3))
    kinds = draw(st.lists(st.sampled_from(["full", "window", "window", "chunk", "state"]), min_size=1, max_size=4))
    spans, drop = [draw(st.integers(1, 9)), draw(st.integers(1, 9))], draw(st.booleans())
    groups = []
    for kind in kinds:
        if kind == "chunk" and drop:
            kind = "full"
        larger = kind in ("full", "window") and "chunk" not in kinds and draw(st.booleans())
        span = draw(st.sampled_from(spans)) if kind in ("window", "chunk") else None
        groups.append(Group(kind, span, size * (2 if larger else 1)))
    if all(group.block_size > size for group in groups) and any(group.kind == "state" for group in groups):
        groups = [Group("state", None, size), *groups]
    return groups, drop
