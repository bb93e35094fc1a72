"""Plain Python twins of traces of sessions: dicts and sets, a request at a time."""

import gzip
import json

from places import SHARED

SESSIONS = SHARED / "data" / "agentic_sessions.jsonl.gz"
ANCHORS = SHARED / "anchors_agentic.json"


def list_requests(session, main_only=False):
    """Return (time, prompt tokens, ids) of a session's requests, a sub-agent's at its own start, in order of time."""
    found = []
    for entry in session["requests"]:
        if entry["type"] != "subagent":
            found.append((entry["t"], entry["in"], entry["hash_ids"]))
        elif not main_only:
            found += [(entry["t"] + one["t"], one["in"], one["hash_ids"]) for one in entry["requests"]]
    return sorted(found, key=lambda one: one[0])


def count_hits(requests, block_size=64):
    """Return (prompt tokens, hit tokens, blocks, hit blocks) of each request: its leading blocks seen before."""
    seen, rows = set(), []
    for _, tokens, ids in requests:
        hits = 0
        while hits < len(ids) and ids[hits] in seen:
            hits += 1
        seen.update(ids)
        rows.append((tokens, block_size * hits, len(ids), hits))
    return rows


def read_sessions(path=SESSIONS):
    with gzip.open(path, "rt") as file:
        return [json.loads(line) for line in file]


def stream_prompts(rows, block_size, replies=True):
    """Return each row's whole prompt as a list of token names, for rows that list what is new in their session.

    A block id names its tokens; a reply's tokens are its own.
    """
    said, prompts = {}, []
    for number, row in enumerate(rows):
        before = said.setdefault(row["session_id"], [])
        tokens = [(one, k) for one in row["hash_ids"] for k in range(block_size)][: row["input_length"]]
        prompt = before + tokens
        prompts.append(prompt)
        answer = [("reply", number, k) for k in range(row.get("output_length", 0))]
        said[row["session_id"]] = prompt + (answer if replies else [])
    return prompts


def count_prefix_hits(prompts, block_size):
    """Return the hit tokens of each prompt, by the set of all prefixes of whole blocks and of whole prompts."""
    seen, hits = set(), []
    for prompt in prompts:
        ends = [*range(block_size, len(prompt), block_size), *([len(prompt)] if prompt else [])]
        found = 0
        for end in ends:
            if tuple(prompt[:end]) not in seen:
                break
            found = end
        seen.update(tuple(prompt[:end]) for end in ends)
        hits.append(found)
    return hits
