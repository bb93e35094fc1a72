"""Download the full ShareGPT V3 from its hub: resumable, its size and checksum verified."""

from pathlib import Path

from kvprefix.files import InputError, find_project, sha256_file

REPOSITORY = "anon8231489123/ShareGPT_Vicuna_unfiltered"
FILENAME = "ShareGPT_V3_unfiltered_cleaned_split.json"


def fetch_full_sharegpt(folder=None):
    """Download the file to `data/raw` (or `folder`) and return its path; a download that broke off goes on.

    The hub states the size and the SHA-256 of the file's content; both are checked against what arrived.

    Raises
    ------
    InputError
        No network, no such file, or content that differs from what the hub states.
    """
    from huggingface_hub import HfApi, hf_hub_download

    folder = Path(folder or (find_project() or Path.cwd()) / "data" / "raw")
    try:
        (entry,) = HfApi().get_paths_info(REPOSITORY, FILENAME, repo_type="dataset")
        path = Path(hf_hub_download(REPOSITORY, FILENAME, repo_type="dataset", local_dir=folder))
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"{REPOSITORY}: could not be fetched from the hub ({reason}). It needs a network; what has arrived is kept "
            f"in {folder} and the next try goes on from there. The bundled part (DATA=bundled) needs none"
        ) from error
    size, expected = path.stat().st_size, entry.lfs.sha256 if entry.lfs else None
    if size != entry.size or (expected and sha256_file(path) != expected):
        raise InputError(
            f"{path}: differs from what the hub states ({entry.size} bytes, SHA-256 {expected}); "
            "delete it and try again"
        )
    return path
