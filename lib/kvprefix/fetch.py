"""Download the full ShareGPT V3 from its hub: resumable, its size and checksum verified."""

from pathlib import Path

from kvprefix.files import InputError, find_project, sha256_file

REPOSITORY = "anon8231489123/ShareGPT_Vicuna_unfiltered"
FILENAME = "ShareGPT_V3_unfiltered_cleaned_split.json"
N_BYTES = 672_837_942
SHA256 = "35f0e213ce091ed9b9af2a1f0755e9d39f9ccec34ab281cd4ca60d70f6479ba4"


def fetch_full_sharegpt(folder=None):
    """Download the file to `data/raw` (or `folder`) and return its path; a download that broke off goes on.

    Raises
    ------
    InputError
        No network, no such file, or content of another size or checksum than N_BYTES and SHA256.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.utils import logging

    logging.set_verbosity_error()  # what is wrong is said once, below

    folder = Path(folder or (find_project() or Path.cwd()) / "data" / "raw")
    try:
        path = Path(hf_hub_download(REPOSITORY, FILENAME, repo_type="dataset", local_dir=folder))
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"{REPOSITORY}: could not be fetched from the hub ({reason}). It needs a network; what has arrived is kept "
            f"in {folder} and the next try goes on from there. The bundled part (DATA=bundled) needs none"
        ) from error
    if path.stat().st_size != N_BYTES or sha256_file(path) != SHA256:
        raise InputError(
            f"{path}: is not the expected file ({N_BYTES:,} bytes, SHA-256 {SHA256}); delete it and try again"
        )
    return path
