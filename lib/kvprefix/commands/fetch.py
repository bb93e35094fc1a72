"""``kvprefix fetch``: download the full ShareGPT V3 to data/raw."""

from kvprefix.files.paths import tell

HELP = "download the full ShareGPT V3 to data/raw"


def add_options(_parser):
    """Add no options."""


def call(_options):
    """Download, or continue a download."""
    from kvprefix.conversations.fetch import fetch_full_sharegpt

    tell(f"the full ShareGPT V3 is at {fetch_full_sharegpt()}")
