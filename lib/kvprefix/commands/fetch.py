"""``kvprefix fetch``: download a public data set to data/raw."""

from kvprefix.files.paths import tell

HELP = "download a public data set to data/raw"
SETS = {
    "sharegpt": "the full ShareGPT V3, 94,145 conversations",
    "agentic": "739 sessions of coding agents as block ids, and the 60 of them that reports/agentic is made of",
}


def add_options(parser):
    """Add what the command takes."""
    text = "; ".join(f"{name}: {what}" for name, what in SETS.items())
    parser.add_argument("set", nargs="?", choices=SETS, default="sharegpt", help=f"{text} (default: %(default)s)")


def call(options):
    """Download, or continue a download."""
    if options.set == "sharegpt":
        from kvprefix.conversations.fetch import fetch_full_sharegpt

        tell(f"the full ShareGPT V3 is at {fetch_full_sharegpt()}")
        return
    from kvprefix.formats.public_sessions import fetch_sessions

    found = fetch_sessions()
    tell(f"the agentic sessions are at {found.whole}, 60 of them at {found.some}")
