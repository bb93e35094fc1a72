"""The command line, a file per command: its help, its options, and what it calls.

Nothing is measured or drawn here. A module's name is its command's; `NAMES` says in which order help shows them.
"""

NAMES = (
    "inspect", "run", "provenance", "misses", "explain", "compare", "curve", "replay", "memory", "check", "convert",
    "prepare", "notebooks", "paper", "fetch", "verify",
)  # fmt: skip
