"""Find a format by name or by content, and say in words which ones there are."""

import contextlib
import itertools
import re
from pathlib import Path

from kvprefix.conversations.sources import find_files, is_pattern
from kvprefix.files.paths import InputError, explain_os_errors
from kvprefix.files.words import guess
from kvprefix.formats.entry import HOLDS
from kvprefix.formats.registry import FORMATS

_FIRST_LINES = 100  # in which a format shows, if lines before it are odd
_FIRST_BYTES = 1 << 16  # in which it shows, if its JSON goes over several lines


def list_sources(*holds):
    """Return the formats that can be read, those that hold one of `holds` (all if none is given)."""
    return [one for one in FORMATS.values() if one.read and (not holds or one.holds in holds)]


def list_targets():
    """Return the formats that can be written, what holds least first."""
    return sorted((one for one in FORMATS.values() if one.write), key=lambda one: -HOLDS.index(one.holds))


def find_source(name):
    """Return the format of this name that can be read, or raise InputError."""
    return _find(name, list_sources(), "read")


def find_target(name):
    """Return the format of this name that can be written, or raise InputError."""
    return _find(name, list_targets(), "written")


def _find(name, formats, done):
    for one in formats:
        if one.name == name:
            return one
    names = [one.name for one in formats]
    raise InputError(f"format {name!r} cannot be {done}; known: {', '.join(names)}{guess(name, names)}")


def recognise(path):
    """Return the format of a file: by its first bytes, else by the first request of its first lines; None if unknown.

    Of a file without such lines: by the first object of its JSON. Of a folder: by its first file of a known format.

    Raises
    ------
    InputError
        A file that cannot be read, or is compressed in a way that is not known.
    """
    from kvprefix.files.jsonlines import number_lines, parse_object, read_magic

    if Path(path).is_dir():
        return _recognise_folder(path)
    if is_pattern(path):
        return FORMATS["chats"]
    with explain_os_errors(path):
        magic = read_magic(path)
        found = next((one for one in reversed(list_sources()) if one.has_magic(magic) and one.fits(path)), None)
        if found:
            return found
        with contextlib.closing(number_lines(path)) as lines:
            records = (parse_object(line, "")[0] for _, line in itertools.islice(lines, _FIRST_LINES))
            found = next(filter(None, map(_recognise_request, records)), None)
    return found or _recognise_whole(path) or _recognise_chats(path)


def _recognise_folder(path):
    for file in find_files(path)[0]:
        with contextlib.suppress(InputError):  # a folder may hold anything
            found = recognise(file)
            if found and found.holds == "messages":
                return FORMATS["chats"]
            if found and found.takes_folders:
                return found
    return None


def _recognise_whole(path):
    """Return the format of a file whose JSON goes over several lines, if it soon has a list of ids."""
    from kvprefix.files.jsonlines import open_stream
    from kvprefix.formats.documents import read_documents

    with explain_os_errors(path), open_stream(path) as stream:
        if b'"hash_ids"' not in stream.read(_FIRST_BYTES):
            return None
    document = next(read_documents(path, "hash_ids", ""), None)
    found = _recognise_request(document.record) if document else None
    return found if found and found.takes_folders else None


def _recognise_chats(path):
    from kvprefix.conversations.traffic import holds_chats

    return FORMATS["chats"] if holds_chats(path) else None


def _recognise_request(record):
    if record is None:
        return None
    return next((one for one in reversed(list_sources()) if one.has_request(record)), None)


def lists_blocks(path):
    """Say whether a file or a folder is a trace of block ids."""
    found = recognise(path)
    return found is not None and found.holds == "blocks"


def refuse_unknown(path):
    """Raise InputError for a file of no known format: it names the first line's fields and the known formats."""
    from kvprefix.files.jsonlines import number_lines, parse_object, show_value

    if Path(path).is_dir():
        kinds = join_words([one.label for one in list_sources() if one.takes_folders])
        raise InputError(f"{path}: is a folder without files of a known format; known in folders: {kinds}")
    said = "is empty"
    with explain_os_errors(path), contextlib.closing(number_lines(path)) as lines:
        for number, line in lines:
            record, fault = parse_object(line, "expected a request")
            names = [name[:40] if name.isprintable() else show_value(name) for name in list(record or {})[:12]]
            fields = ", ".join(names) or "no fields"
            said = f"line {number} {fault or f'is a request of no known format: it has {fields}'}"
            break
    known = "; ".join(f"{one.name} ({one.definition})" for one in list_sources())
    raise InputError(f"{path}: {said}; known formats are: {known}")


def join_names(formats):
    """Return names in words.

    >>> join_names(list_sources("messages"))
    'chats, engine or log'
    """
    return join_words([one.name for one in formats])


def join_words(words):
    """Return words with commas and an "or".

    >>> join_words(["a", "b", "c"]), join_words(["a"])
    ('a, b or c', 'a')
    """
    return " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def list_sizes(*holds):
    """Return the usual block sizes of the formats that hold one of `holds`, in words.

    >>> list_sizes("blocks").partition(", agent")[0]
    'mooncake 512, bailian 16'
    """
    return ", ".join(f"{one.name} {one.block_size}" for one in list_sources(*holds) if one.block_size)


def make_table():
    """Return the table of all formats, as the docs show it, in Markdown."""
    lines = ["| format | of | read | written from | not in it |", "|:--|:--|:--|:--|:--|"]
    lines += [
        f"| `{one.name}` | {one.tools} | {_say_read(one)} | {_say_written(one)} | {one.not_in_it} |"
        for one in FORMATS.values()
    ]
    return "\n".join(re.sub(" {2,}", " ", line) for line in lines)


def _say_read(one):
    return "yes" if one.read else f"as `{one.read_as}`" if one.read_as else ""


def _say_written(one):
    if not one.write:
        return f"(`{one.written_by}` writes it)" if one.written_by else ""
    if one.holds == "messages":
        return ", ".join(f"`{source.name}`" for source in list_sources("messages"))
    return "any trace" if one.holds == "blocks" else "any trace with tokens or messages"
