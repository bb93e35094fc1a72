"""What differs in the parameters of reports, and how many things that are: the possible causes of a difference."""

from kvprefix.traces.table import TABLE

_CHANGE_NO_RATE = ("kv_model", "tokenizer_encoder")  # how capacities are shown; what gives the same ids faster
_CONTENTS = {"data": ("data_sha256",), "tokenizer": ("tokenizer_sha256", "tokenizer_has_template")}
SHORT = 12  # digits of a checksum that a table shows


def list_parameters(reports):
    """Return all parameters, checksums and versions: a dict of name to a list with each report's value."""
    flat = [_flatten(one.parameters) for one in reports]
    names = dict.fromkeys(name for one in flat for name in one)
    return {name: [one.get(name) for one in flat] for name in names}


def list_things(first, other):
    """Return what differs between two reports and may change what they measure, by name.

    Data and tokenizer (with its chat template) differ if their contents do, whatever their names; all versions are one
    thing; the model in whose memory capacities are shown is none, nor is the encoder, which changes no id.
    """
    pair = list_parameters([first, other])
    unknown = _CONTENTS["tokenizer"] if first.lists_blocks or other.lists_blocks else ()  # where one has no tokenizer
    differ = [name for name, (one, two) in pair.items() if one != two and name not in (*_CHANGE_NO_RATE, *unknown)]
    of_contents = {name: thing for thing, names in _CONTENTS.items() for name in names}
    things = []
    for name in differ:
        if name not in _CONTENTS:
            things.append(of_contents.get(name, name.partition(".")[0]))
    return list(dict.fromkeys(things))


def list_renamed(first, other):
    """Return which of data and tokenizer have another name and equal content."""
    things = list_things(first, other)
    return [name for name in _CONTENTS if first.parameters[name] != other.parameters[name] and name not in things]


def differs_in_seed_only(first, other):
    """Say whether two reports are draws of the same thing."""
    return list_things(first, other) == ["seed"]


def show_parameter(name, value):
    """Return a parameter's value as readers write it, a checksum cut short.

    >>> show_parameter("max_conversations", None), show_parameter("data_sha256", "0123456789abcdef")
    ('all', '0123456789ab…')
    """
    if value is None and name != "max_conversations":
        return "–"
    if name in TABLE:
        return TABLE[name].show(value)
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return f"{text[:SHORT]}…" if name.endswith("sha256") else text


def _flatten(parameters):
    if parameters["tokenizer_sha256"] is None:  # a trace of block ids has none, whatever its default is
        parameters = {**parameters, "tokenizer": None}
    flat = {name: value for name, value in parameters.items() if not isinstance(value, dict)}
    nested = {name: value for name, value in parameters.items() if isinstance(value, dict)}
    return flat | {f"{name}.{key}": one for name, value in nested.items() for key, one in value.items()}
