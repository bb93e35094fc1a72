"""Every format that is read or written, one entry per format; help, errors and the table of formats are made of them.

To add a format, write its reader and writer and register an entry here; a format of a user's own is registered from
anywhere. Nothing heavy is imported before a format is used.
"""

from kvprefix.files.paths import InputError
from kvprefix.formats.entry import Format
from kvprefix.formats.session_signs import (
    is_agent_session,
    is_agentic_head,
    is_agentic_line,
    is_dynamo_line,
    is_tracelab_round,
)

FORMATS = {}


def register(one):
    """Add a format, or replace the one of the same name: it is then known everywhere.

    Parameters
    ----------
    one : Format
    """
    FORMATS[one.name] = one


def _read_parquet(path, options):
    from kvprefix.traces.parquet import read_trace

    trace = read_trace(path)
    if not len(trace):
        raise InputError(f"{path}: holds no requests")
    return trace


def _write_parquet(trace, path, options):
    from kvprefix.traces.parquet import write_trace

    write_trace(trace, path)
    return []


def _is_engine_request(record):
    from kvprefix.formats.chat_fields import ENGINE_FIELDS

    return record.keys() >= ENGINE_FIELDS


def _is_logged_request(record):
    from kvprefix.formats.chat_fields import find_request

    return find_request(record) is not None and not _is_engine_request(record)


def _read_log(path, options):
    from kvprefix.formats.chat_log import read_log

    return read_log(path, progress=options.progress)


def _tokenise_log(path, options):
    from kvprefix.formats.chat_trace import tokenise_log
    from kvprefix.tokens.tokenizer import find_tokenizer

    return tokenise_log(_read_log(path, options), find_tokenizer(options.tokenizer), progress=options.progress)


def _is_chat(record):
    from kvprefix.conversations.forms.registry import recognise

    return recognise(record) is not None


def _is_table(magic):
    from kvprefix.conversations.tables import is_table

    return is_table(magic)


def _read_chats(path, options):
    from kvprefix.formats.traffic_trace import read_chats
    from kvprefix.tokens.tokenizer import find_tokenizer

    tokenizer = find_tokenizer(options.tokenizer)
    return read_chats(path, tokenizer, server=options.server, progress=options.progress)


def _is_our_parquet(path):
    from kvprefix.traces.parquet import is_ours

    return is_ours(path)


def _read_requests(path, options):
    from kvprefix.formats.requests import read_requests

    return read_requests(path)


def _write_requests(trace, path, options):
    from kvprefix.formats.requests import write_requests

    return write_requests(trace, path, progress=options.progress)


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


def _check_custom(path):
    if not str(path).endswith(".jsonl"):
        raise InputError(f"{path}: vLLM reads its custom dataset from a file named .jsonl only; name it so")


def _write_custom(log, path, options):
    from kvprefix.formats.exports import write_vllm_custom
    from kvprefix.tokens.tokenizer import find_tokenizer

    return write_vllm_custom(log, path, find_tokenizer(options.tokenizer), progress=options.progress)


def _write_multi_turn(log, path, options):
    from kvprefix.formats.exports import write_vllm_multi_turn

    return write_vllm_multi_turn(log, path, progress=options.progress)


def _write_batch(log, path, options):
    from kvprefix.formats.exports import write_openai_batch

    return write_openai_batch(log, path, model=options.model, progress=options.progress)


register(Format(
    name="chats", label="chats of any form", holds="tokens",
    definition="conversations, logs of requests, transcripts of agents: a file, a folder or a glob (see `inspect`)",
    tools="chat data sets, gateways, tracers and agents ([chat traffic](traffic.md))", not_in_it="",
    read=_read_chats, has_request=_is_chat, has_magic=_is_table, takes_folders=True, block_size=16,
    options=("tokenizer", "server"),
))  # fmt: skip
register(Format(
    name="requests", label="requests of token ids", holds="tokens",
    definition="JSON Lines of request_id, timestamp (ms), prompt_token_ids, output_token_ids",
    tools="requests of token ids, as `replay` takes them", not_in_it="texts, conversations",
    read=_read_requests, write=_write_requests, has_request=lambda record: "prompt_token_ids" in record, block_size=16,
))  # fmt: skip
register(Format(
    name="parquet", label="our Parquet", holds="tokens",
    definition="our Parquet, which `run --parquet` writes",
    tools="our traces with tokens (`run --parquet`)", not_in_it="texts",
    read=_read_parquet, write=_write_parquet, has_magic=lambda magic: magic == b"PAR1", fits=_is_our_parquet, block_size=16,
    is_packed=False,
))  # fmt: skip
register(Format(
    name="engine", label="our engine traces", holds="messages",
    definition="our engine trace: JSON Lines of request_id, conversation_id, turn, timestamp, messages, ...",
    tools="our `*_trace.jsonl`", not_in_it="replies that end a conversation",
    read=_read_log, tokenise=_tokenise_log, written_by="run", has_request=_is_engine_request, options=("tokenizer",),
))  # fmt: skip
register(Format(
    name="log", label="logs of OpenAI requests", holds="messages",
    definition="JSON Lines of OpenAI requests: messages, a time, the completion if it is known",
    tools="OpenAI requests, with a time and the completion if known",
    read=_read_log, tokenise=_read_chats, has_request=_is_logged_request, options=("tokenizer", "server"),
))  # fmt: skip
register(Format(
    name="mooncake", label="Mooncake's lines", holds="blocks",
    definition="JSON Lines of timestamp, input_length, output_length, hash_ids, perhaps session_id",
    tools="Mooncake's traces; kvcache-simulator 0.1.3, llmtrafficlens 0.13.4, aiperf 0.13.0, vLLM 0.32.0's "
    "`timed_trace`",
    not_in_it="tokens, texts, names, conversations, fractions of a ms",
    read=_read_mooncake, read_sessions=_read_mooncake_sessions, write=_write_mooncake,
    has_request=lambda record: "hash_ids" in record,
    block_size=512,  # of the traces that Mooncake published
    options=("block_size", "outputs", "timing"),
))  # fmt: skip
register(Format(
    name="bailian", label="Bailian's lines", holds="blocks",
    definition="JSON Lines of chat_id, parent_chat_id, turn, type, timestamp, input_length, output_length, hash_ids",
    tools="Bailian's traces; llmtrafficlens, aiperf, vLLM's `timed_trace`",
    not_in_it="tokens, texts, names (`chat_id` is the line)",
    read=_read_bailian, read_sessions=_gather_bailian, write=_write_bailian,
    has_request=lambda record: {"hash_ids", "chat_id"} <= record.keys(),
    block_size=16,  # of the traces that Bailian published
    options=("block_size",),
))  # fmt: skip
register(Format(
    name="agent-sessions", label="agentic sessions", holds="blocks",
    definition="JSON objects of id, block_size, hash_id_scope, requests: one each line, one, a list, or a folder",
    tools="kv-cache-tester's public sessions; aiperf, guidellm, inference-perf",
    read=arrange(_read_agent_sessions), read_sessions=_read_agent_sessions, takes_folders=True,
    has_request=is_agent_session, block_size=64,  # of the public sessions
    options=("block_size", "timing"),
))  # fmt: skip
register(Format(
    name="agentic-mooncake", label="agentic Mooncake", holds="blocks",
    definition="JSON Lines of request_id, session_id, wait_for, delay, tool_wait_ms, and Mooncake's fields",
    tools="Dynamo's `agentic_mooncake`, versions 1 and 2",
    read=arrange(_read_agentic_mooncake), read_sessions=_read_agentic_mooncake,
    has_request=lambda record: is_agentic_head(record) or is_agentic_line(record),
    block_size=512, options=("block_size", "timing"),
))  # fmt: skip
register(Format(
    name="dynamo", label="Dynamo's request traces", holds="blocks",
    definition="JSON Lines of event_type, event_time_unix_ms, agent_context, request: a file or a folder",
    tools="Dynamo's request and agent traces (`DYN_REQUEST_TRACE`)",
    read=arrange(_read_dynamo), read_sessions=_read_dynamo, takes_folders=True, has_request=is_dynamo_line,
    block_size=64, options=("block_size", "timing"),
))  # fmt: skip
register(Format(
    name="tracelab", label="TraceLab's rounds", holds="blocks",
    definition="JSON Lines of session_id, round_index, input_tokens_total, prefix_tokens, timing_events",
    tools="TraceLab's public coding sessions; aiperf",
    read=arrange(_read_tracelab), read_sessions=_read_tracelab,
    has_request=is_tracelab_round, block_size=64,
    options=("block_size", "timing"),
))  # fmt: skip
register(Format(
    name="vllm-custom", label="vLLM's custom dataset", holds="messages",
    definition="JSON Lines of prompt and output_tokens",
    tools="vLLM 0.32.0, `vllm bench serve --dataset-name custom`", not_in_it="stamps, names, conversations, replies",
    write=_write_custom, check_target=_check_custom, options=("tokenizer",),
))  # fmt: skip
register(Format(
    name="vllm-multi-turn", label="vLLM's multi-turn conversations", holds="messages",
    definition="a JSON array of id and messages",
    tools="vLLM 0.32.0, `benchmarks/multi_turn/benchmark_serving_multi_turn.py`",
    not_in_it="stamps, request names, system messages",
    write=_write_multi_turn,
))  # fmt: skip
register(Format(
    name="openai-batch", label="OpenAI's batch file", holds="messages",
    definition="JSON Lines of custom_id, method, url and body",
    tools="OpenAI's batch API; vLLM 0.32.0, `vllm run-batch`", not_in_it="stamps, last replies",
    read_as="log", write=_write_batch, options=("model",),
))  # fmt: skip
