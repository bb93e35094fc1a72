"""What the registry says of a format: its name, words, reader, writer and usual block size."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from kvprefix.files.paths import InputError

HOLDS = ("tokens", "messages", "blocks")  # what a format can hold: a Trace, a CallLog, a PrefixTrace


class Options(NamedTuple):
    """What a user may say of reading and writing.

    Attributes
    ----------
    block_size : int or None
        Tokens per block of what is read; None for what it says, else the format's usual size.
    outputs : bool
        Whether the numbers of generated tokens are needed.
    tokenizer : str
        Of messages: `bundled` (Qwen2.5), a hub id or a folder.
    server : str
        Of chats: whose rules make prompts of bodies.
    model : str
        Written if a request names none.
    progress : bool
    timing : Timing, optional
        When sessions start and their requests follow; see `timing`.
    """

    block_size: int | None = None
    outputs: bool = False
    tokenizer: str = "bundled"
    server: str = "vllm"
    model: str = "default"
    progress: bool = True
    timing: object = None


@dataclass(frozen=True, kw_only=True)
class Format:
    """A format.

    Attributes
    ----------
    name : str
        As `convert` takes it: small letters, digits and dashes.
    label : str
        What such a file is, in two or three words.
    definition : str
        How such a file looks, in a line.
    holds : str
        One of HOLDS.
    tools, not_in_it : str
        Which tools read or write it, and what is lost in it: cells of the docs' table, in Markdown.
    read : callable, optional
        ``read(path, options)`` returns a Trace, a CallLog or a PrefixTrace that lists partial blocks too. It raises
        InputError, naming the line. None if the format is only written, or read as another one.
    read_sessions : callable, optional
        ``read_sessions(path, options)`` returns a SessionTrace, or None if the file has no sessions.
    tokenise : callable, optional
        ``tokenise(path, options)`` returns a Trace; of a format that holds messages.
    takes_folders : bool
        Whether it may be a folder of files.
    read_as : str, optional
        The format as which it is read.
    write : callable, optional
        ``write(content, path, options)`` writes such content, whole or not at all, and returns what it dropped or
        added, in words. None if the format is only read.
    written_by : str, optional
        The command that writes it instead.
    has_magic : callable, optional
        Whether a file is of this format, by its first four bytes.
    fits : callable, optional
        Whether a file that begins so is of this format, by its path.
    has_request : callable, optional
        Whether a line is a request of this format, by its JSON object. Later entries are asked first, here and there.
    check_target : callable, optional
        ``check_target(path)`` raises InputError if no such file may be written there.
    block_size : int, optional
        Tokens, the usual size of its blocks, or of those that tokens are cut into.
    is_packed : bool
        Whether it may be gzip or zstandard.
    options : tuple of str
        The fields of Options, other than `progress`, that it heeds.
    """

    name: str
    label: str
    definition: str
    holds: str
    tools: str = ""
    not_in_it: str = ""
    read: Callable | None = None
    read_sessions: Callable | None = None
    tokenise: Callable | None = None
    takes_folders: bool = False
    read_as: str | None = None
    write: Callable | None = None
    written_by: str | None = None
    has_magic: Callable = lambda magic: False
    fits: Callable = lambda path: True
    has_request: Callable = lambda record: False
    check_target: Callable = lambda path: None
    block_size: int | None = None
    is_packed: bool = True
    options: tuple = ()

    def __post_init__(self):
        if not re.fullmatch("[a-z0-9-]+", self.name):
            raise InputError(f"format {self.name!r} is no name; expected small letters, digits and dashes")
        if self.holds not in HOLDS:
            raise InputError(f"format {self.name} holds {self.holds!r}; expected one of {', '.join(HOLDS)}")
        if self.holds != "messages" and self.block_size is None:
            raise InputError(f"format {self.name} lacks block_size; expected the usual size of its blocks in tokens")
        if self.read is None and self.write is None:
            raise InputError(f"format {self.name} has neither read nor write; expected one of them or both")
