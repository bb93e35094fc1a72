"""Small files of agent sessions that grow, pause and begin anew."""

import json

import numpy as np


def make_sessions(path, n=9):
    rng, lines = np.random.default_rng(2), []
    for number in range(n):
        t, ids, fresh, requests = 0.0, [], 0, []
        for k in range(int(rng.integers(4, 30))):
            ids = ids[: len(ids) // 2] if k % 7 == 6 else ids
            ids, fresh = [*ids, *range(fresh, fresh + 3)], fresh + 3
            stop = ("tool_use", "end_turn", "")[(k % 4 == 1) + (k % 9 == 8)]
            requests.append({"t": t, "type": "n", "model": "m", "in": 64 * len(ids) + 5, "out": 50, "hash_ids": ids,
                             "stop": stop, "api_time": 2.0})  # fmt: skip
            t += 2 + float(rng.exponential(15 if stop == "tool_use" else 3000))
        lines.append({"id": number, "block_size": 64, "hash_id_scope": "local", "requests": requests})
    path.write_text("\n".join(map(json.dumps, lines)))
    return path
