"""Read the groups of layers of a model: a name, its `config.json`, or a file that lists them.

A list is JSON: `{"groups": [{"kind": "full"}, {"kind": "window", "window": 1024, "count": 5}]}`. A group has a `kind`
(full, window, chunk or state); a window its `window`, a chunk its `chunk`; optionally `block_size` and `count`, how
many such groups there are. The order is that in which they take blocks. What a group leaves out can stand beside
`groups`, or is the command's. vLLM's own names, such as SlidingWindowSpec, are kinds too.
"""

from pathlib import Path

from kvprefix.engines.group_layers import group_layers
from kvprefix.engines.groups import NAMED, SPANS, Group, name_groups
from kvprefix.files.checks import check_whole
from kvprefix.files.paths import InputError, resolve_input
from kvprefix.files.words import guess
from kvprefix.models.fields import read_json
from kvprefix.models.memory import list_names, load_model

_KINDS = {
    "full": "full", "window": "window", "chunk": "chunk", "state": "state", "sliding": "window", "chunked": "chunk",
    "recurrent": "state", "mamba": "state", "FullAttentionSpec": "full", "SlidingWindowSpec": "window",
    "ChunkedLocalAttentionSpec": "chunk", "MambaSpec": "state",
}  # fmt: skip
_FIELDS = ("kind", "window", "chunk", "block_size", "count")
_EXPECTED = '{"groups": [{"kind": "full"}, {"kind": "window", "window": 128}]}'
_MOST_GROUPS = 64


def read_groups(model, window=None, block_size=16):
    """Return the groups of a model.

    Parameters
    ----------
    model : str or path-like
        A name of `NAMED` or of the table of models, a `config.json` or its folder, or a JSON file that lists groups.
    window : int, optional
        Tokens of the windows or chunks that the model does not tell.
    block_size : int
        Tokens, of the groups that do not tell theirs.

    Returns
    -------
    tuple of Group

    Raises
    ------
    InputError
        No such name or file; a file that contradicts itself or the window: its name, and the group's number.
    """
    content, path = read_model(model)
    try:
        return make_groups(content, window, block_size)
    except InputError as error:
        raise error if path is None else InputError(f"{path}: {error}") from None


def read_model(model):
    """Return what `make_groups` takes for a model, a name or the content of a file, and where that is from, if any."""
    if model in NAMED:
        return model, None
    path = resolve_input(Path(model))
    if path.is_dir():
        path = path / "config.json"
    if not path.exists():
        try:
            return load_model(model).row["config"], str(model)
        except InputError:
            raise InputError(
                f"model is {str(model)!r}; expected {', '.join(NAMED)}, a config.json, a JSON file that lists groups, "
                f"or a model that kvprefix memory knows{guess(model, [*NAMED, *list_names()])}"
            ) from None
    return read_json(path), path


def make_groups(content, window=None, block_size=16):
    """Return the groups of a name, or of a file's content; see `read_groups`."""
    if isinstance(content, str):
        return name_groups(content, window, block_size)
    if isinstance(content, dict) and "groups" not in content:
        return group_layers(content, window, block_size)
    return _list_groups(content, window, block_size)


def _list_groups(content, window, block_size):
    """Return the groups of a file's content."""
    listed = content.get("groups") if isinstance(content, dict) else None
    if not isinstance(listed, list) or not listed:
        raise InputError(f"has no list of groups; expected {_EXPECTED}")
    groups = []
    for number, one in enumerate(listed, 1):
        own = {"kind": one} if isinstance(one, str) else one
        try:
            groups += _make_groups(own, content, window, block_size)
        except InputError as error:
            raise InputError(f"group {number}: {error}") from None
        if len(groups) > _MOST_GROUPS:
            raise InputError(f"more than {_MOST_GROUPS} groups; expected fewer")
    return tuple(groups)


def _make_groups(own, content, window, block_size):
    """Return the groups that one entry of a file stands for."""
    if not isinstance(own, dict) or not isinstance(own.get("kind"), str) or own["kind"] not in _KINDS:
        raise InputError(f"is {own!r}; expected a kind of {', '.join(list(_KINDS)[:4])}")
    strange = [name for name in own if name not in _FIELDS]
    if strange:
        raise InputError(f"has {strange[0]}; expected fields of {', '.join(_FIELDS)}")
    kind = _KINDS[own["kind"]]
    stray = [name for name in SPANS if name in own and name != kind]
    if stray:
        raise InputError(f"is of kind {kind} and has a {stray[0]}; expected one or the other")
    span = _find_span(kind, own, content, window) if kind in SPANS else None
    size = own.get("block_size", content.get("block_size", block_size))
    expected = f"a whole number of groups, 1 to {_MOST_GROUPS}"
    return [Group(kind, span, size)] * check_whole(own.get("count", 1), "count", expected, most=_MOST_GROUPS)


def _find_span(kind, own, content, window):
    """Return the tokens of a group's window or chunk."""
    span = own.get(kind, content.get(kind, content.get("window")))
    if span is None and window is None:
        raise InputError(f"has no {kind}; expected its tokens there, or --window")
    if None not in (span, window) and span != window:
        raise InputError(f"has a {kind} of {span}, and --window is {window}; expected one of them, or the same")
    return window if span is None else span
