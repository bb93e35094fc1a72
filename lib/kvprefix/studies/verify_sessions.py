"""Check how traces of sessions are read: recorded hits of an unbounded cache, request by request."""

import json
import tempfile
from pathlib import Path

from kvprefix.cache.curve import count_seen
from kvprefix.files.paths import explain_os_errors
from kvprefix.formats.read import read_sessions
from kvprefix.studies.anchors import equal


def check_sessions(folder):
    """Yield an anchor for each recorded trace of sessions; a trace that lies in the list itself is written first."""
    path = folder / "sessions.expected.json"
    with explain_os_errors(path):
        cases = json.loads(path.read_text(encoding="utf-8"))
    for case in cases:
        yield equal(f"sessions: {case['name']}", _count_hits(folder, case), case["hit_tokens"])


def _count_hits(folder, case):
    """Return each request's hit tokens, session after session, in the order of their times."""
    if "file" in case:
        return _hit(read_sessions(folder / case["file"]))
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "lines.jsonl"
        path.write_text("".join(f"{json.dumps(one)}\n" for one in case["lines"]), encoding="utf-8")
        return _hit(read_sessions(path, block_size=case["block_size"]))


def _hit(sessions):
    accesses = sessions.accesses
    return accesses.hit_tokens(count_seen(accesses.ids, accesses.offsets)).tolist()
