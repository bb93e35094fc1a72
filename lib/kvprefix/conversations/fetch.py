"""The full ShareGPT V3, which its hub has: where it is, and what it must be."""

from pathlib import Path

from kvprefix.files.download import Source, fetch_file
from kvprefix.files.paths import raw_folder

SHAREGPT = Source(
    "anon8231489123/ShareGPT_Vicuna_unfiltered",
    "ShareGPT_V3_unfiltered_cleaned_split.json",
    "The bundled part (DATA=bundled) needs none",
    672_837_942,
    "35f0e213ce091ed9b9af2a1f0755e9d39f9ccec34ab281cd4ca60d70f6479ba4",
)


def fetch_full_sharegpt(folder=None):
    """Download the file to `data/raw` (or `folder`) and return its path, as `fetch_file` does."""
    return fetch_file(SHAREGPT, Path(folder or raw_folder()) / SHAREGPT.filename)
