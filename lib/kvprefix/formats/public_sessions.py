"""The public set of agentic sessions, which its hub has, and the 60 of them that the committed report is made of."""

import json
import sys
from pathlib import Path
from typing import NamedTuple

from kvprefix.files.download import Source, fetch_file
from kvprefix.files.jsonlines import read_objects
from kvprefix.files.paths import atomic_path, raw_folder, tell
from kvprefix.files.sealed import sha256_file
from kvprefix.files.words import count
from kvprefix.formats.agent_sessions import EXPECTED

SESSIONS = Source(
    "semianalysisai/cc-traces-weka-042026",  # of github.com/callanjfox/kv-cache-tester, in one file
    "traces.jsonl",
    "reports/agentic is the report of 60 of the sessions; any trace of sessions of your own is read without a network",
)
WHOLE, SOME = "agentic_sessions.jsonl", "agentic_sessions_60.jsonl"
SOME_SHA256 = "f80900200814b2d0a7f31083e2b52da78ff5ea58f6c60cc0cf3f33e683250836"
SOME_IDS = frozenset(f"trace_{number:04}" for number in (
    2, 3, 13, 20, 40, 46, 51, 72, 76, 90, 98, 114, 120, 121, 137, 143, 144, 149, 166, 173, 195, 207, 211, 221, 231,
    245, 263, 269, 276, 284, 295, 304, 315, 322, 350, 363, 366, 372, 373, 377, 387, 388, 400, 436, 457, 494, 498, 546,
    552, 570, 580, 589, 596, 625, 652, 655, 672, 673, 697, 727,
))  # fmt: skip
FIELDS = ("id", "models", "block_size", "hash_id_scope", "tool_tokens", "system_tokens", "requests")


class Fetched(NamedTuple):
    """What `fetch_sessions` left: the paths, and whether the 60 sessions are those of the committed report."""

    whole: Path
    some: Path
    is_same: bool


def fetch_sessions(folder=None):
    """Download all sessions to `data/raw` (or `folder`), and write the 60 of the committed report beside them.

    Returns
    -------
    Fetched

    Raises
    ------
    InputError
        As `fetch_file`; a line of the file that is no JSON object.
    """
    folder = Path(folder or raw_folder())
    whole, some = fetch_file(SESSIONS, folder / WHOLE), folder / SOME
    if not some.exists() or sha256_file(some) != SOME_SHA256:
        found = select_sessions(whole, some)
        tell(f"{whole}: {count(found, 'session')}")
    is_same = sha256_file(some) == SOME_SHA256
    if not is_same:
        tell(
            f"{some}: is not what reports/agentic was made of, because the public set has changed; a report of it is "
            "right, but not equal to the committed one", sys.stderr,
        )  # fmt: skip
    return Fetched(whole, some, is_same)


def select_sessions(whole, some, ids=SOME_IDS):
    """Write the sessions of some ids to another file, in their order, with the FIELDS alone; return how many were read.

    Each is a line of JSON without spaces, so that the file has the same bytes whoever wrote the first one.
    """
    found = 0
    with atomic_path(some) as temporary, open(temporary, "w", encoding="ascii", newline="\n") as file:
        for _, record in read_objects(whole, EXPECTED):
            found += 1
            if record.get("id") in ids:
                kept = {name: record[name] for name in FIELDS if name in record}
                file.write(json.dumps(kept, separators=(",", ":")) + "\n")
    return found
