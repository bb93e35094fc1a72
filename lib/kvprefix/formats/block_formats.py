"""The entries of formats that list block ids; see `registry`."""

from kvprefix.files.paths import InputError
from kvprefix.formats.entry import Format
from kvprefix.formats.session_signs import (
    is_agent_session,
    is_agentic_head,
    is_agentic_line,
    is_dynamo_line,
    is_tracelab_round,
)


def _read_mooncake(path, options):
    from kvprefix.formats.mooncake import read_mooncake

    trace = read_mooncake(path, options.block_size, outputs=options.outputs)
    if trace is None:
        return _timing(options).arrange(_read_mooncake_sessions(path, options))
    if options.timing:
        raise InputError(f"{path}: no line has a session_id, so requests keep their times: --arrivals is for sessions")
    return trace


def _read_mooncake_sessions(path, options):
    from kvprefix.formats.mooncake_sessions import read_mooncake_sessions

    return read_mooncake_sessions(path, _timing(options).clockwork, options.block_size)


def _write_mooncake(trace, path, options):
    from kvprefix.formats.mooncake import write_mooncake

    return write_mooncake(trace, path, progress=options.progress)


def _read_bailian(path, options):
    from kvprefix.formats.bailian import read_bailian

    return read_bailian(path, options.block_size)


def _gather_bailian(path, options):
    from kvprefix.blocks.sessions import gather_sessions

    return gather_sessions(_read_bailian(path, options))


def _write_bailian(trace, path, options):
    from kvprefix.formats.bailian import write_bailian

    return write_bailian(trace, path, progress=options.progress)


def arrange(read_sessions):
    """Return what reads a SessionTrace as a PrefixTrace, at the times that the options give."""

    def read(path, options):
        return _timing(options).arrange(read_sessions(path, options))

    return read


def _timing(options):
    from kvprefix.formats.timing import Timing

    return options.timing or Timing()


def _read_agent_sessions(path, options):
    from kvprefix.formats.agent_sessions import read_agent_sessions

    return read_agent_sessions(path, _timing(options).clockwork, options.block_size)


def _read_agentic_mooncake(path, options):
    from kvprefix.formats.agentic_mooncake import read_agentic_mooncake

    return read_agentic_mooncake(path, _timing(options).clockwork, options.block_size)


def _read_dynamo(path, options):
    from kvprefix.formats.dynamo import read_dynamo

    return read_dynamo(path, _timing(options).clockwork, options.block_size)


def _read_tracelab(path, options):
    from kvprefix.formats.tracelab import read_tracelab

    return read_tracelab(path, _timing(options).clockwork, options.block_size)


ENTRIES = (
    Format(
        name="mooncake", label="Mooncake's lines", holds="blocks",
        definition="JSON Lines of timestamp, input_length, output_length, hash_ids, perhaps session_id",
        tools="Mooncake's traces; kvcache-simulator 0.1.3, llmtrafficlens 0.13.4, aiperf 0.13.0, vLLM 0.32.0's "
        "`timed_trace`",
        not_in_it="tokens, texts, names, conversations, fractions of a ms",
        read=_read_mooncake, read_sessions=_read_mooncake_sessions, write=_write_mooncake,
        has_request=lambda record: "hash_ids" in record,
        block_size=512,  # of the traces that Mooncake published
        options=("block_size", "outputs", "timing"),
    ),
    Format(
        name="bailian", label="Bailian's lines", holds="blocks",
        definition="JSON Lines of chat_id, parent_chat_id, turn, type, timestamp, input_length, output_length, "
        "hash_ids",
        tools="Bailian's traces; llmtrafficlens, aiperf, vLLM's `timed_trace`",
        not_in_it="tokens, texts, names (`chat_id` is the line)",
        read=_read_bailian, read_sessions=_gather_bailian, write=_write_bailian,
        has_request=lambda record: {"hash_ids", "chat_id"} <= record.keys(),
        block_size=16,  # of the traces that Bailian published
        options=("block_size",),
    ),
    Format(
        name="agent-sessions", label="agentic sessions", holds="blocks",
        definition="JSON objects of id, block_size, hash_id_scope, requests: one each line, one, a list, or a folder",
        tools="kv-cache-tester's public sessions; aiperf, guidellm, inference-perf",
        read=arrange(_read_agent_sessions), read_sessions=_read_agent_sessions, takes_folders=True,
        has_request=is_agent_session, block_size=64,  # of the public sessions
        options=("block_size", "timing"),
    ),
    Format(
        name="agentic-mooncake", label="agentic Mooncake", holds="blocks",
        definition="JSON Lines of request_id, session_id, wait_for, delay, tool_wait_ms, and Mooncake's fields",
        tools="Dynamo's `agentic_mooncake`, versions 1 and 2",
        read=arrange(_read_agentic_mooncake), read_sessions=_read_agentic_mooncake,
        has_request=lambda record: is_agentic_head(record) or is_agentic_line(record),
        block_size=512, options=("block_size", "timing"),
    ),
    Format(
        name="dynamo", label="Dynamo's request traces", holds="blocks",
        definition="JSON Lines of event_type, event_time_unix_ms, agent_context, request: a file or a folder",
        tools="Dynamo's request and agent traces (`DYN_REQUEST_TRACE`)",
        read=arrange(_read_dynamo), read_sessions=_read_dynamo, takes_folders=True, has_request=is_dynamo_line,
        block_size=64, options=("block_size", "timing"),
    ),
    Format(
        name="tracelab", label="TraceLab's rounds", holds="blocks",
        definition="JSON Lines of session_id, round_index, input_tokens_total, prefix_tokens, timing_events",
        tools="TraceLab's public coding sessions; aiperf",
        read=arrange(_read_tracelab), read_sessions=_read_tracelab,
        has_request=is_tracelab_round, block_size=64,
        options=("block_size", "timing"),
    ),
)  # fmt: skip
