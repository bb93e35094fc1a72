"""The command line, a file per command: its help, its options, and what it calls.

Nothing is measured or drawn here. A module's name is its command's; `NAMES` says in which order help shows them.
"""

NAMES = (
    "inspect", "run", "provenance", "misses", "explain", "lint", "compare", "curve", "plan", "route", "tiers", "memory",
    "replay", "check", "convert", "prepare", "notebooks", "paper", "fetch", "verify",
)  # fmt: skip
