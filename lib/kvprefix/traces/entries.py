"""Classes by name: an entry has a name, a form as text, a definition, and options with their checks.

A new arrival process, clock or think time needs one entry and nothing else: the command, the figures, the tables, the
README and the message for an unknown name use it.
"""

from dataclasses import MISSING, field, fields

from kvprefix.files.paths import InputError
from kvprefix.files.words import guess
from kvprefix.traces.table import TABLE, Parameter


def option(kind, name, *, default=MISSING, **check):
    """Declare a field that is given in the entry's text, after a colon, in the order of the fields."""
    parameter = Parameter(name=f"the {name}", kind=kind, **check)
    return field(default=default, metadata={"parameter": parameter, "option": True})


def of_table(name, *, required=False):
    """Declare a field that is a parameter of the table, with its check, and its default unless it is `required`."""
    parameter = TABLE[name]
    return field(default=MISSING if required else parameter.default, metadata={"parameter": parameter})


class Entry:
    """The base of every registered class; it checks the fields that `option` and `of_table` declare."""

    name = form = definition = ""

    def __post_init__(self):
        for one in fields(self):
            value, parameter = getattr(self, one.name), one.metadata.get("parameter")
            if parameter and (value is not None or one.default is not None):
                object.__setattr__(self, one.name, parameter.check(value))

    @property
    def text(self):
        """The entry as the command takes it: its name and its options, without trailing defaults."""
        given = [(getattr(self, one.name), one.default) for one in _options(self)]
        while given and given[-1][0] == given[-1][1]:
            given.pop()
        return ":".join([self.name, *(f"{value:g}" if isinstance(value, float) else str(value) for value, _ in given)])

    @property
    def files(self):
        """The files that the entry reads."""
        paths = [one.name for one in _options(self) if one.metadata["parameter"].kind == "path"]
        return [getattr(self, name) for name in paths if getattr(self, name) is not None]

    def as_parameters(self, name):
        """Return the entry as parameters of the table: its text under `name`, and its fields that are parameters."""
        declared = [one for one in fields(self) if "parameter" in one.metadata and "option" not in one.metadata]
        return {name: self.text, **{one.metadata["parameter"].name: getattr(self, one.name) for one in declared}}

    def check_files(self):
        """Raise InputError if a file that the entry reads cannot be used; most entries read none."""

    def __str__(self):
        return self.describe()


def _options(entry):
    return [one for one in fields(entry) if "option" in one.metadata]


class Entries(dict):
    """A registry: the classes of one kind by name, in order.

    Parameters
    ----------
    what, verb : str
        The kind and its verb, which begin a message.
    """

    def __init__(self, what, verb="is"):
        super().__init__()
        self.what, self.verb = what, verb

    def entry(self, form, definition):
        """Register a class: `form` is its name and options as text, `definition` describes it in the docs.

        Both must be literals, because `table` reads them without importing the module.
        """

        def register(cls):
            cls.name = form.partition(":")[0].partition("[")[0]
            cls.form, cls.definition = form, definition
            self[cls.name] = cls
            return cls

        return register

    def parse(self, text, parameters=None):
        """Make an entry from its text.

        Parameters
        ----------
        text : str
            One of the forms.
        parameters : mapping, optional
            Values of the table's parameters by name; the entry takes those that it has as fields.

        Raises
        ------
        InputError
            An unknown name, or an option that cannot be used.
        """
        name, colon, rest = str(text).partition(":")
        options = _options(self[name]) if name in self else []
        parts = rest.split(":", max(len(options) - 1, 0)) if rest else []
        least = sum(one.default is MISSING for one in options)
        if name not in self or (colon and not parts) or not least <= len(parts) <= len(options):
            known = ", ".join(cls.form for cls in self.values())
            meant = "" if name in self else guess(name, self)
            raise InputError(f"{self.what} {text!r} {self.verb} not known; known: {known}{meant}")
        values = {}
        for one, part in zip(options, parts, strict=False):
            parameter = one.metadata["parameter"]
            try:
                values[one.name] = parameter.check(parameter.parse(part))
            except InputError as error:
                raise InputError(f"{self.what} {text!r}: {error}") from None
        for one in fields(self[name]):
            shared = one.metadata["parameter"].name if "parameter" in one.metadata else None
            if one.name not in values and shared in (parameters or {}):
                values[one.name] = parameters[shared]
        return self[name](**values)
