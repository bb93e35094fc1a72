"""Convert traces between the formats of other tools: the library behind ``python -m kvprefix convert``.

A format is known by what its first request holds. What each format is, and what a conversion drops, is with its reader
or writer: `trace` (Parquet), `requestlog` (engine traces and logs), `mooncake`, `bailian`, `exports`.
"""

import contextlib
import itertools
from pathlib import Path
from typing import NamedTuple

import numpy as np

from kvprefix.files.checks import check_block_size
from kvprefix.files.jsonlines import number_lines, parse_object, read_magic, show_value
from kvprefix.files.paths import InputError, explain_os_errors, refuse_same_file
from kvprefix.files.words import count

SOURCES = {
    "parquet": "our Parquet, which `run --parquet` writes",
    "engine": "our engine trace: JSON Lines of request_id, conversation_id, turn, timestamp, messages, ...",
    "log": "JSON Lines of OpenAI requests: messages, a time, the completion if it is known",
    "mooncake": "JSON Lines of timestamp, input_length, output_length, hash_ids",
    "bailian": "JSON Lines of chat_id, parent_chat_id, turn, type, timestamp, input_length, output_length, hash_ids",
}
TARGETS = ("mooncake", "bailian", "vllm-custom", "vllm-multi-turn", "openai-batch", "parquet")
_LISTS_BLOCKS = ("mooncake", "bailian")
_HAS_MESSAGES = ("engine", "log")
_FIRST_LINES = 100  # in which a format shows, if lines before it are odd


class Converted(NamedTuple):
    """What a conversion did.

    Attributes
    ----------
    source, target : str
        Formats.
    requests : int
        Of what was read.
    block_size : int or None
        Tokens, where blocks are listed.
    notes : list of str
        What was put right, and what was dropped.
    """

    source: str
    target: str
    requests: int
    block_size: int | None
    notes: list


def find_format(path):
    """Return the format of a trace, a key of SOURCES; None if it is none.

    By its first bytes, else by the first request of a known format among its first lines.
    """
    with explain_os_errors(path):
        if read_magic(path) == b"PAR1":
            return "parquet"
        with contextlib.closing(number_lines(path)) as lines:
            found = (_find_kind(parse_object(line, "")[0]) for _, line in itertools.islice(lines, _FIRST_LINES))
            return next(filter(None, found), None)


def _find_kind(record):
    """Return the format of a request; None if it is of none."""
    if record is None:
        return None
    if "hash_ids" in record:
        return "bailian" if "chat_id" in record else "mooncake"
    from kvprefix.formats.chat_fields import ENGINE_FIELDS, find_request

    if record.keys() >= ENGINE_FIELDS:
        return "engine"
    return "log" if find_request(record) is not None else None


def convert(
    source, target, to, *, kind=None, block_size=None, from_block_size=None, tokenizer="bundled", model="default",
    progress=True,
):  # fmt: skip
    """Read a trace in any of SOURCES and write it in one of TARGETS, whole or not at all.

    Parameters
    ----------
    source, target : path-like
        JSON Lines are compressed where the target's name ends in `.gz` or `.zst`.
    to : str
    kind : str, optional
        The source's format; found by content if not given.
    block_size : int, optional
        Tokens a block, of a target that lists blocks. If not given: the source's own, or of a source with tokens the
        target's usual one (512 for Mooncake's form, 16 for Bailian's).
    from_block_size : int, optional
        Tokens a block, of a source that lists blocks. If not given: what it says, else its form's usual one.
    tokenizer : str
        For a source with messages: `bundled` (Qwen2.5), a hub id or a folder.
    model : str
        For a batch file, where the log names none.
    progress : bool

    Returns
    -------
    Converted

    Raises
    ------
    InputError
        A source that is in no known format or is wrong (file and line are named), and what cannot be: a source without
        tokens or messages in a target that needs them, finer blocks than there are.
    """
    _check(source, target, to, kind, block_size, from_block_size)
    kind = kind or find_format(source)
    if kind is None:
        raise InputError(f"{source}: {_describe_unknown(source)}; known formats are: {_list_sources()}")
    if from_block_size is not None and kind not in _LISTS_BLOCKS:
        raise InputError(f"--from-block-size is given, but {source} ({kind}) lists no blocks")
    if to in _LISTS_BLOCKS:
        return _write_blocks(source, target, to, kind, block_size, from_block_size, tokenizer, progress)
    if block_size is not None:
        raise InputError(f"--block-size is given, but {to} lists no blocks")
    if kind in _LISTS_BLOCKS:
        raise InputError(f"{source}: lists block ids ({kind}), which name tokens that nobody knows: no {to} of it")
    if to == "parquet":
        trace = _read_tokens(source, kind, tokenizer, progress)
        from kvprefix.traces.trace import write_trace

        write_trace(trace, Path(target))
        return Converted(kind, to, len(trace), None, [*_notes_of(trace), *_texts_dropped(kind)])
    if kind not in _HAS_MESSAGES:
        raise InputError(
            f"{source}: holds token ids, and {to} needs the messages: convert the trace of JSON Lines that was written "
            "beside it (such as multi_turn_trace.jsonl)"
        )
    return _write_messages(source, target, to, kind, tokenizer, model, progress)


def _describe_unknown(path):
    """Say what the first line of a file of no known format is."""
    for number, line in number_lines(path):
        record, fault = parse_object(line, "expected a request")
        names = [name[:40] if name.isprintable() else show_value(name) for name in list(record or {})[:12]]
        fields = ", ".join(names) or "no fields"
        return f"line {number} {fault or f'is a request of no known format: it has {fields}'}"
    return "is empty"


def _list_sources():
    return "; ".join(f"{name} ({text})" for name, text in SOURCES.items())


def _check(source, target, to, kind, block_size, from_block_size):
    if to not in TARGETS:
        raise InputError(f"format {to!r} cannot be written; known: {', '.join(TARGETS)}")
    if kind is not None and kind not in SOURCES:
        raise InputError(f"format {kind!r} cannot be read; known: {', '.join(SOURCES)}")
    for size in (block_size, from_block_size):
        if size is not None:
            check_block_size(size)
    if to == "vllm-custom" and not str(target).endswith(".jsonl"):
        raise InputError(f"{target}: vLLM reads its custom dataset from a file named .jsonl only; name it so")
    refuse_same_file(source, target)


def _read_tokens(source, kind, tokenizer, progress):
    if kind == "parquet":
        from kvprefix.traces.trace import read_trace

        trace = read_trace(source)
        if not len(trace):
            raise InputError(f"{source}: holds no requests")
        return trace
    from kvprefix.formats.chat_trace import read_log_trace

    return read_log_trace(source, tokenizer, progress=progress)


def _notes_of(trace):
    return trace.info.get("log", {}).get("notes", []) if trace.info.get("mode") == "log" else []


def _texts_dropped(kind):
    return ["dropped: the messages' texts (token ids stay)"] if kind in _HAS_MESSAGES else []


def _write_messages(source, target, to, kind, tokenizer, model, progress):
    from kvprefix.formats import exports
    from kvprefix.formats.chat_log import read_log

    log = read_log(source, progress=progress)
    if to == "openai-batch":
        notes = exports.write_openai_batch(log, target, model=model, progress=progress)
    elif to == "vllm-multi-turn":
        notes = exports.write_vllm_multi_turn(log, target, progress=progress)
    else:
        from kvprefix.tokens.tokenizer import find_tokenizer

        notes = exports.write_vllm_custom(log, target, find_tokenizer(tokenizer), progress=progress)
    return Converted(kind, to, len(log), None, [*log.info["notes"], *notes])


def _write_blocks(source, target, to, kind, block_size, from_block_size, tokenizer, progress):
    from kvprefix.formats import bailian, mooncake
    from kvprefix.formats.block_trace import coarsen_blocks, make_block_trace

    usual = {"mooncake": mooncake.BLOCK_SIZE, "bailian": bailian.BLOCK_SIZE}[to]
    if kind in _LISTS_BLOCKS:
        read = {"mooncake": mooncake.read_mooncake_trace, "bailian": bailian.read_bailian_trace}[kind]
        trace = given = read(source, from_block_size)
        notes = given.info["notes"]
        if block_size is not None:
            trace = coarsen_blocks(given, block_size)
    else:
        tokens = _read_tokens(source, kind, tokenizer, progress)
        trace = given = make_block_trace(tokens, block_size or usual)
        notes = _notes_of(tokens)
    moved_ms = 0.0
    if to == "mooncake":
        moved_ms = mooncake.write_mooncake(trace, target, progress=progress)
    else:
        bailian.write_bailian(trace, target, progress=progress)
    notes = [*notes, *_describe_blocks(kind, to, given, trace, usual, moved_ms)]
    return Converted(kind, to, len(trace), trace.block_size, notes)


def _describe_blocks(kind, to, given, trace, usual, moved_ms):
    """Say what a target that lists blocks has dropped, and what stands in for what the source does not know."""
    size, n = trace.block_size, len(trace)
    partial = int(np.count_nonzero(trace.prompt_tokens % size))
    empty = int(np.count_nonzero(trace.prompt_tokens == 0))
    said = {
        "dropped: token ids and texts (their numbers stay), names of requests and conversations":
            kind not in _LISTS_BLOCKS,
        "dropped: conversations and turns": to == "mooncake" and kind not in _LISTS_BLOCKS,
        "dropped: chat_id, parent_chat_id, type and turn": (kind, to) == ("bailian", "mooncake"),
        "chat_id is numbered anew": (kind, to) == ("bailian", "bailian"),
        "type is written as text": to == "bailian" and kind != "bailian",
        "no conversations are known: every request is a first turn": (kind, to) == ("mooncake", "bailian"),
        f"dropped: fractions of a millisecond (stamps moved by at most {moved_ms:.3g} ms)": moved_ms > 1e-6,
        f"{given.block_size} tokens a block became {size}: {count(len(given.parent), 'distinct block')} became "
        f"{count(len(trace.parent), 'distinct block')}": given.block_size != size,
        f"{partial:,} of {count(n, 'request')} end in a partial block, which has an id of its own": partial,
        f"{count(empty, 'request')} without tokens: kvcache-simulator refuses them": empty,
        f"blocks hold {size} tokens: other tools must be told, for the usual size is {usual}": size != usual,
    }  # fmt: skip
    return [text for text, applies in said.items() if applies]
