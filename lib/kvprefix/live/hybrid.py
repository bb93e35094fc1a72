"""The groups of layers of a live server's model, if it is a hybrid: what was given, and the engine that replays it."""

import re
from dataclasses import dataclass

from kvprefix.engines.group_files import make_groups
from kvprefix.engines.versions import HYBRID_VERSIONS, choose_version
from kvprefix.engines.vllm_hybrid import VLLMHybrid
from kvprefix.files.paths import InputError

_RETENTION = re.compile(r"prefix_cache_retention_interval=([0-9]{1,9})")


@dataclass(frozen=True)
class KVGroups:
    """A model's groups of layers, as a user gives them.

    Attributes
    ----------
    model : str or dict
        A name of `groups.NAMED`, or the content of a file that `group_files` reads.
    window : int, optional
        Tokens of its windows or chunks.
    retention : int or "none", optional
        Tokens between checkpoints; what the server says, else 0, if not given.
    """

    model: str | dict
    window: int | None = None
    retention: int | str | None = None

    def __post_init__(self):
        make_groups(self.model, self.window)

    def as_dict(self):
        """Return it as JSON values."""
        return {"model": self.model, "window": self.window, "retention": self.retention}


def make_engine(given, run, block_size, blocks, version):
    """Return the engine that replays a hybrid model.

    Parameters
    ----------
    given : dict
        Of `KVGroups.as_dict`.
    run : dict
        Of the recording.
    block_size, blocks : int
        Of the server's cache; None is no bound.
    version : str or None
        What the server says.
    """
    try:
        known = KVGroups(**given)
    except TypeError:
        raise InputError("the recording's groups of layers cannot be read; --restart begins a new one") from None
    said = _RETENTION.search((run.get("metrics") or {}).get("hybrid") or "")
    retention = known.retention if known.retention is not None else int(said[1]) if said else 0
    return VLLMHybrid(
        make_groups(known.model, known.window, block_size), choose_version(HYBRID_VERSIONS, version), blocks=blocks,
        retention=None if retention == "none" else retention,
    )  # fmt: skip
