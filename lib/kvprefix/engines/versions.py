"""Which of an engine's rules hold from which version on: a table per engine, a row per change of the rules.

A new version needs a row here, and recordings of it for the tests. No cache is replayed here.
"""

import re
from typing import NamedTuple

from kvprefix.files.paths import InputError

_VERSION = re.compile(r"v?([0-9]{1,9}(?:\.[0-9]{1,9}){1,3})(?:[.+-]?[a-z][0-9A-Za-z.+_-]*|\+[0-9A-Za-z.+_-]*)?")


class VLLMRules(NamedTuple):
    """What differs between vLLM's versions.

    Attributes
    ----------
    legacy_free : bool
        A finished request's blocks that are not full go to the tail of the free queue like the others, rather
        than to its head.
    """

    legacy_free: bool


class SGLangRules(NamedTuple):
    """What differs between SGLang's versions: nothing yet."""


class Row(NamedTuple):
    """Rules that hold from version `first` on, compared with the engine up to `checked`."""

    first: str
    checked: str
    rules: tuple


class Table(NamedTuple):
    """An engine's versions, the oldest first."""

    engine: str
    rows: tuple

    @property
    def newest(self):
        """The newest version that the rules were compared with."""
        return self.rows[-1].checked


class Known(NamedTuple):
    """The rules of a version, and a caveat on them, if there is one."""

    rules: tuple
    note: str = ""


VLLM_VERSIONS = Table("vLLM", (
    Row("0.8", "0.22", VLLMRules(legacy_free=True)),
    Row("0.23", "0.32", VLLMRules(legacy_free=False)),
))  # fmt: skip
HYBRID_VERSIONS = Table("vLLM with groups of layers", (
    Row("0.32", "0.32", VLLMRules(legacy_free=False)),
))  # fmt: skip
SGLANG_VERSIONS = Table("SGLang", (
    Row("0.5.23", "0.5.23", SGLangRules()),
))  # fmt: skip


def find_rules(table, version):
    """Return the rules that an engine's version follows.

    Parameters
    ----------
    table : Table
    version : str
        "0.32" or "0.32.1"; a tag after the numbers, as in "0.23.0rc1", is not looked at.

    Returns
    -------
    Known

    Raises
    ------
    InputError
        No version, or one that is older than the first row.

    Examples
    --------
    >>> find_rules(VLLM_VERSIONS, "0.25.1")
    Known(rules=VLLMRules(legacy_free=False), note='')
    >>> find_rules(VLLM_VERSIONS, "0.40").note
    'vLLM 0.40 is newer than 0.32, the last version checked; the rules are those of 0.32'
    """
    numbers = _read(version)
    in_force = [row for row in table.rows if numbers and _split(row.first) <= numbers]
    if not in_force:
        known = "; ".join(f"{row.first} to {row.checked}" for row in table.rows)
        why = "is older than those whose rules are known" if numbers else "is no version"
        raise InputError(f"{table.engine} {version!r} {why}; expected one like {table.newest!r} (known: {known})")
    newest = _split(table.newest)
    if numbers[: len(newest)] <= newest:
        return Known(in_force[-1].rules)
    return Known(in_force[-1].rules, (
        f"{table.engine} {version} is newer than {table.newest}, the last version checked; the rules are those of "
        f"{table.newest}"
    ))  # fmt: skip


def choose_version(table, version):
    """Return a version if its rules are known, the oldest known one if it is older, the newest one if it is no version.

    >>> [choose_version(VLLM_VERSIONS, version) for version in ("0.25.1", "0.7.3", None)]
    ['0.25.1', '0.8', '0.32']
    """
    numbers, oldest = _read(version), table.rows[0].first
    if numbers is None:
        return table.newest
    return oldest if numbers < _split(oldest) else version


def _read(version):
    """Return the numbers of a version, or None."""
    match = _VERSION.fullmatch(version) if isinstance(version, str) else None
    return _split(match[1]) if match else None


def _split(version):
    return tuple(map(int, version.split(".")))
