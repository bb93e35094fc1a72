"""Cards: memory, speed and price of a GPU, from a table or a file of one's own. Prices are parameters, not quotations.

Memory is what the driver reports (``nvidia-smi``), speed the datasheet's dense rate, price what one provider asked per
card and hour on the day that the docs name (``explanation/memory-time-money.md``).
"""

from dataclasses import dataclass, replace
from pathlib import Path

from kvprefix.files.checks import check_number, refuse
from kvprefix.files.paths import InputError, resolve_input
from kvprefix.files.words import guess
from kvprefix.models.fields import read_json


@dataclass(frozen=True)
class Card:
    """A GPU.

    Attributes
    ----------
    name, label, source : str
    memory_mib : float
        MiB that the driver reports.
    flops : dict
        Dense floating-point operations per second, by the numbers' type: ``bf16``, and ``fp8`` if it has that.
    bytes_per_s : float
        Bandwidth of its memory.
    usd_per_hour : float or None
        Price of one card; None if none is known.
    """

    name: str
    memory_mib: float
    flops: dict
    bytes_per_s: float
    usd_per_hour: float | None = None
    label: str = ""
    source: str = ""

    @property
    def memory_bytes(self):
        """Bytes of its memory."""
        return self.memory_mib * 2**20

    def rate(self, dtype="bf16"):
        """Return the operations per second for weights of a type; bf16's if it has no rate for the type."""
        return self.flops["fp8" if dtype.removeprefix("torch.") in FP8 and "fp8" in self.flops else "bf16"]


_FIELDS = "memory_mib, flops (bf16, fp8), bytes_per_s, usd_per_hour, label, source"
FP8 = {"fp8", "fp8_e4m3", "fp8_e5m2", "float8_e4m3fn", "float8_e5m2", "int8"}


def load_card(name, *, usd_per_hour=None):
    """Find a card by its name in the table (case does not matter), or read a JSON file with a Card's fields.

    Parameters
    ----------
    name : str or path-like
    usd_per_hour : float, optional
        Price of one card, instead of the table's.

    Returns
    -------
    Card

    Raises
    ------
    InputError
        A name that is not known, a file without these fields, a number that is not above 0, a negative price.

    Examples
    --------
    >>> load_card("h100-80g").rate("bf16")
    989000000000000.0
    """
    rows, name = _read_table(), str(name)
    row, path = next((row for row in rows if row["name"].lower() == name.lower()), None), resolve_input(name)
    if row is None and not (name and path.exists()):
        names = [row["name"] for row in rows]
        expected = f"expected a JSON file of a card's fields, or one of {', '.join(names)}{guess(name, names)}"
        raise InputError(f"card {name!r} is not known; {expected}")
    card = _make_card(row) if row else _read_card(path)
    return card if usd_per_hour is None else replace(card, usd_per_hour=check_price(usd_per_hour))


def list_cards():
    """Return the table of known cards as a DataFrame; what is not known is None."""
    import pandas as pd

    rows = [_make_card(row) for row in _read_table()]
    return pd.DataFrame({
        "card": [one.name for one in rows], "is": [one.label for one in rows],
        "memory (GiB)": [one.memory_mib / 1024 for one in rows],
        "bf16 TFLOPS": [one.flops["bf16"] / 1e12 for one in rows],
        "fp8 TFLOPS": [one.flops["fp8"] / 1e12 if "fp8" in one.flops else None for one in rows],
        "memory TB/s": [one.bytes_per_s / 1e12 for one in rows],
        "$ per hour": [one.usd_per_hour for one in rows], "source": [one.source for one in rows],
    })  # fmt: skip


def check_price(value, name="price"):
    """Return a price in dollars, 0 or more."""
    return check_number(value, name, "a price in dollars, 0 or more")


def _read_card(path):
    try:
        row = read_json(path)
        if not isinstance(row, dict):
            raise InputError(f"holds no JSON object; expected the fields {_FIELDS}")
        return _make_card({"name": path.stem, "source": str(path), **row})
    except InputError as error:
        raise InputError(f"{path}: {error}" if str(path) not in str(error) else str(error)) from error


def _make_card(row):
    """Return a Card of a row, whose fields are checked."""
    flops = row.get("flops", {})
    if not isinstance(flops, dict):
        refuse(flops, "flops", 'an object such as {"bf16": 989e12}')
    given = {**row, **{f"flops.{key}": one for key, one in flops.items()}}
    known = {*Card.__dataclass_fields__, "flops.bf16", "flops.fp8"}
    unknown = sorted(set(given) - known)
    missing = [field for field in ("memory_mib", "bytes_per_s", "flops.bf16") if field not in given]
    if unknown or missing:
        field, fault = (unknown or missing)[0], "not known" if unknown else "missing"
        raise InputError(f"a card's field {field} is {fault}; expected {_FIELDS}")
    for field, value in given.items():
        if field in ("memory_mib", "bytes_per_s") or field.startswith("flops."):
            check_number(value, field, "a number above 0 (up to 1e30)", least=1e-9, most=1e30)
        elif field in ("name", "label", "source") and not isinstance(value, str):
            refuse(value, field, "a text")
    if row.get("usd_per_hour") is not None:
        check_price(row["usd_per_hour"], "usd_per_hour")
    return Card(**row)


def _read_table():
    return read_json(Path(__file__).with_name("cards.json"))
