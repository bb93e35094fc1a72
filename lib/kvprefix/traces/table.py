"""Read the table of parameters, `parameters.toml`: for the library, the command, `make help` and the docs.

`make help` runs this file alone, before there is an environment, so it imports only the standard library.
"""

import ast
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """A named value with its check: a row of the table, or an option of an entry.

    Attributes
    ----------
    name, help : str
    kind : str
        `path`, `whole`, `number`, `flag` or `entry`.
    default, example : object
    unit : str
        Unit of a number, as text.
    least, most : float, optional
        Limits of a number; both are allowed.
    word : str, optional
        The text that stands for None: no limit.
    expected : str
        What would be right, for messages; made from the other fields if not given.
    entries : dict of str to str
        Of an `entry`: each form of its text, and its meaning.
    of : str
        `plan` if it only says what a plan compares; the requests are the same.
    """

    name: str
    kind: str
    default: object = None
    help: str = ""
    example: object = None
    unit: str = ""
    least: float | None = None
    most: float | None = None
    word: str | None = None
    expected: str = ""
    entries: dict | None = None
    of: str = ""

    def parse(self, text):
        """Read a text as this parameter's kind; a text that does not fit stays text, for `check` to refuse."""
        if self.kind == "flag":
            return {"true": True, "1": True, "false": False, "0": False}.get(text.lower(), text)
        if self.kind not in ("whole", "number"):
            return text
        from kvprefix.files.numerals import read_number

        return read_number(text, int if self.kind == "whole" else float)

    def check(self, value):
        """Return the value as a plain Python one; raise InputError if it cannot be used."""
        value = value.item() if hasattr(value, "item") else value
        if self.word and value in (None, self.word):
            return None
        if self.kind in ("path", "entry"):
            value = str(value)
            is_right = self.kind == "entry" or (value.strip() and "\0" not in value)
        elif self.kind == "flag":
            is_right = isinstance(value, bool)
        else:
            kinds = int if self.kind == "whole" else int | float
            is_right = isinstance(value, kinds) and not isinstance(value, bool) and self.least <= value <= self.most
        if not is_right:
            from kvprefix.files.paths import InputError

            raise InputError(f"{self.name} is {value!r}; expected {self.say_expected()}")
        return value

    def say_expected(self):
        """Say what would be right."""
        if self.expected or self.kind == "flag":
            return self.expected or "true or false"
        number = "a whole number" if self.kind == "whole" else "a number"
        unit = f" of {self.unit}" if self.unit else ""
        word = f", or `{self.word}`" if self.word else ""
        return f"{number}{unit}, from {_show(self.least)} to {_show(self.most)}{word}"

    def show(self, value):
        """Return a value as text for a command line."""
        return self.word if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _show(number):
    if isinstance(number, float):
        return f"{number:g}"
    return f"2**{number.bit_length()} - 1" if number > 10**9 and not number & (number + 1) else str(number)


def read_table(folder=None):
    """Return {name: Parameter}, in order; `folder` holds the table and the modules of its entries."""
    folder = Path(folder or Path(__file__).parent)
    rows = tomllib.loads((folder / "parameters.toml").read_text(encoding="utf-8"))
    return {name: _make_parameter(folder, name, row) for name, row in rows.items()}


def _make_parameter(folder, name, row):
    entries = list_entries(folder / row.pop("module")) if "module" in row else None
    if entries:
        *others, last = entries
        row["help"] = row["help"].format(forms=f"{', '.join(others)} or {last}")
    default = None if row["default"] == row.get("word") else row["default"]
    return Parameter(**{**row, "name": name, "default": default, "entries": entries})


def list_entries(module):
    """Return {form: definition} of the classes that a module registers with ``@REGISTRY.entry(...)``."""
    found = {}
    for node in ast.parse(Path(module).read_text(encoding="utf-8")).body:
        for call in getattr(node, "decorator_list", []):
            if isinstance(call, ast.Call) and getattr(call.func, "attr", "") == "entry":
                form, definition = map(ast.literal_eval, call.args)
                found[form] = definition
    return found


def format_help(table):
    """Return one line per parameter, as `make help` prints it: its default and its help."""
    return "".join(f"  {f'{name.upper()}={one.show(one.default)}':<29} {one.help}\n" for name, one in table.items())


def format_page(table):
    """Return the table of a page, in Markdown."""
    lines = ["| parameter | default | example | |", "|:--|:--|:--|:--|"]
    for name, one in table.items():
        text = one.help
        if one.entries:
            means = "; ".join(f"`{form}` ({definition})" for form, definition in one.entries.items())
            text = f"{text.partition(':')[0]}: {means}"
        lines.append(f"| `{name.upper()}` | `{one.show(one.default)}` | `{one.show(one.example)}` | {text} |")
    return "\n".join(lines) + "\n"


TABLE = read_table()
SESSION_NAMES = (
    "arrivals", "arrival_rate", "speed", "seed", "think", "think_median_s", "think_sigma", "ttft_s",
    "time_per_output_token_s",
)  # fmt: skip  # what a trace of sessions that lists block ids heeds

if __name__ == "__main__":
    sys.stdout.write(format_help(TABLE))
