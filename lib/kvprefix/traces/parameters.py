"""The parameters of a report as one checked value, and the objects that they describe."""

from dataclasses import asdict, dataclass, field, make_dataclass, replace

from kvprefix.files.paths import InputError, resolve_input
from kvprefix.files.words import guess
from kvprefix.models.cards import load_card
from kvprefix.models.memory import load_model
from kvprefix.servers.rules import find_rules
from kvprefix.traces.arrivals import ARRIVALS, Auto, Logged, Poisson
from kvprefix.traces.clock import CLOCKS
from kvprefix.traces.table import TABLE
from kvprefix.traces.think import THINKS

OF_MODELS = ("arrival_rate", "clock", "think", "think_median_s", "think_sigma")  # what a log's own times do not heed
REGISTRIES = {"arrivals": ARRIVALS, "clock": CLOCKS, "think": THINKS}
_Fields = make_dataclass(
    "_Fields", [(name, object, field(default=one.default)) for name, one in TABLE.items()], frozen=True
)


@dataclass(frozen=True)
class Parameters(_Fields):
    """Everything that determines a report: one value per row of `parameters.toml`, given by name.

    >>> Parameters(block_size=32).block_size, Parameters().seed
    (32, 0)

    Raises
    ------
    InputError
        If a value cannot be used; it says what would be right.
    """

    def __post_init__(self):
        for name, one in TABLE.items():
            object.__setattr__(self, name, one.check(getattr(self, name)))
        for name in REGISTRIES:
            self.make(name)
        load_model(self.kv_model)
        load_card(self.gpu)
        find_rules(self.server)

    def make(self, name):
        """Return the object that `arrivals`, `clock` or `think` describes, made with its other parameters."""
        return make_entry(name, self.as_dict())

    def timing_files(self):
        """Return the files that arrivals and think times are read from."""
        return [file for name in REGISTRIES for file in self.make(name).files]

    def check_timing_files(self):
        """Raise InputError if a file that arrivals or think times are read from cannot be used."""
        for name in REGISTRIES:
            self.make(name).check_files()

    def with_absolute_files(self):
        """Return the parameters with absolute paths of timing files, for any process, and the default `kv_model`.

        A process that only computes does not need `data`, `tokenizer`, `kv_model`, and what a plan compares.
        """
        changes = {name: one.default for name, one in TABLE.items() if one.of == "plan" or name == "kv_model"}
        for name in REGISTRIES:
            for file in self.make(name).files:
                changes[name] = f"{getattr(self, name).removesuffix(file)}{resolve_input(file).resolve()}"
        return replace(self, **changes)

    def as_dict(self):
        """Return the parameters as JSON values."""
        return asdict(self)

    def describe_requests(self):
        """Return the parameters without those of a plan, as JSON values."""
        return {name: value for name, value in asdict(self).items() if TABLE[name].of != "plan"}


def settle_arrivals(parameters, requests=()):
    """Return the parameters with `data` or `poisson` in place of the arrivals `auto`: whether every request has a time.

    Who gives one of OF_MODELS wants modelled times.

    Parameters
    ----------
    parameters : Parameters
    requests : pandas.DataFrame, optional
        `start_s`, if the log has any times.
    """
    if parameters.arrivals != Auto.name:
        return parameters
    has_times = "start_s" in requests and bool(requests["start_s"].notna().all())
    asked = any(getattr(parameters, name) != TABLE[name].default for name in OF_MODELS)
    return replace(parameters, arrivals=(Logged if has_times and not asked else Poisson).name)


def make_entry(name, parameters):
    """Return the object that a mapping of parameters describes by its `arrivals`, `clock` or `think`.

    >>> print(make_entry("arrivals", {"arrivals": "gamma:4", "arrival_rate": 2.0}))
    conversations start 2 per second, with gamma gaps of coefficient of variation 4
    """
    return REGISTRIES[name].parse(parameters.get(name, TABLE[name].default), parameters)


def parse_parameters(texts):
    """Make Parameters from {name: text}, as a command line gives them.

    >>> parse_parameters({"block_size": "32", "max_conversations": "all"}).block_size
    32

    Raises
    ------
    InputError
        An unknown name, or a text that is no such value.
    """
    refuse_unknown(texts)
    return Parameters(**{name: TABLE[name].parse(text) for name, text in texts.items()})


def refuse_unknown(names, known=tuple(TABLE)):
    """Raise InputError if a name is not that of a known parameter."""
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise InputError(f"unknown parameter {', '.join(unknown)}; known: {', '.join(known)}{guess(unknown[0], known)}")
