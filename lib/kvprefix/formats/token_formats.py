"""The entries of formats that hold messages or tokens; see `registry`."""

from kvprefix.files.paths import InputError
from kvprefix.formats.entry import Format

_OF_RUN = frozenset({"request_id", "conversation_id", "turn", "timestamp"})


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
    return record.keys() >= _OF_RUN and ("messages" in record or {"url", "body"} <= record.keys())


def _is_logged_request(record):
    from kvprefix.conversations.forms import requests
    from kvprefix.conversations.forms.registry import recognise

    return recognise(record) in requests.FORMS and not _is_engine_request(record)


def _read_calls(path, options):
    from kvprefix.formats.call_log import read_call_log

    return read_call_log(path, progress=options.progress)


def _is_chat(record):
    from kvprefix.conversations.forms.registry import recognise

    return recognise(record) is not None


def _is_table(magic):
    from kvprefix.conversations.tables import is_table

    return is_table(magic)


def _tokenise(path, options, **more):
    from kvprefix.formats.traffic_trace import read_chats
    from kvprefix.tokens.tokenizer import find_tokenizer

    tokenizer = find_tokenizer(options.tokenizer)
    return read_chats(path, tokenizer, server=options.server, progress=options.progress, **more)


def _tokenise_run(path, options):
    return _tokenise(path, options, of_run=True)


def _is_our_parquet(path):
    from kvprefix.conversations.tables import list_columns

    try:
        return "own_token_ids" in list_columns(path, b"PAR1")
    except InputError:
        return True  # its reader says what is wrong


def _read_requests(path, options):
    from kvprefix.formats.requests import read_requests

    return read_requests(path)


def _write_requests(trace, path, options):
    from kvprefix.formats.requests import write_requests

    return write_requests(trace, path, progress=options.progress)


def _check_custom(path):
    if not str(path).endswith(".jsonl"):
        raise InputError(f"{path}: vLLM reads its custom dataset from a file named .jsonl only; name it so")


def _write_engine(log, path, options):
    from kvprefix.formats.engine_trace import write_engine_log

    return write_engine_log(log, path, progress=options.progress)


def _write_custom(log, path, options):
    from kvprefix.formats.exports import write_vllm_custom
    from kvprefix.tokens.tokenizer import find_tokenizer

    return write_vllm_custom(
        log, path, find_tokenizer(options.tokenizer), server=options.server, progress=options.progress
    )


def _write_multi_turn(log, path, options):
    from kvprefix.formats.exports import write_vllm_multi_turn

    return write_vllm_multi_turn(log, path, progress=options.progress)


def _write_batch(log, path, options):
    from kvprefix.formats.exports import write_openai_batch

    return write_openai_batch(log, path, model=options.model, progress=options.progress)


ENTRIES = (
    Format(
        name="chats", label="chats of any form", holds="messages",
        definition="conversations, logs of requests, transcripts of agents: a file, a folder or a glob (see `inspect`)",
        tools="chat data sets, gateways, tracers and agents ([chat traffic](traffic.md))", not_in_it="",
        read=_read_calls, tokenise=_tokenise, has_request=_is_chat, has_magic=_is_table, takes_folders=True,
        block_size=16, options=("tokenizer", "server"),
    ),
    Format(
        name="requests", label="requests of token ids", holds="tokens",
        definition="JSON Lines of request_id, timestamp (ms), prompt_token_ids, output_token_ids"
        "[, conversation, cache_salt, lora_name]",
        tools="requests of token ids, as `replay` takes them", not_in_it="texts, names of conversations",
        read=_read_requests, write=_write_requests, has_request=lambda record: "prompt_token_ids" in record,
        block_size=16,
    ),
    Format(
        name="parquet", label="our Parquet", holds="tokens",
        definition="our Parquet, which `run --parquet` writes",
        tools="our traces with tokens (`run --parquet`)", not_in_it="texts",
        read=_read_parquet, write=_write_parquet, has_magic=lambda magic: magic == b"PAR1", fits=_is_our_parquet,
        block_size=16, is_packed=False,
    ),
    Format(
        name="engine", label="our engine traces", holds="messages",
        definition="our engine trace: JSON Lines of request_id, conversation_id, turn, timestamp, messages, ...",
        tools="our `*_trace.jsonl`", not_in_it="replies that end a conversation",
        read=_read_calls, tokenise=_tokenise_run, write=_write_engine, has_request=_is_engine_request, block_size=16,
        options=("tokenizer", "server"),
    ),
    Format(
        name="log", label="logs of OpenAI requests", holds="messages",
        definition="JSON Lines of OpenAI requests: messages, a time, the completion if it is known",
        tools="OpenAI requests, with a time and the completion if known",
        read=_read_calls, tokenise=_tokenise, has_request=_is_logged_request, block_size=16,
        options=("tokenizer", "server"),
    ),
    Format(
        name="vllm-custom", label="vLLM's custom dataset", holds="messages",
        definition="JSON Lines of prompt and output_tokens",
        tools="vLLM 0.32.0, `vllm bench serve --dataset-name custom`",
        not_in_it="stamps, names, conversations, replies",
        write=_write_custom, check_target=_check_custom, options=("tokenizer", "server"),
    ),
    Format(
        name="vllm-multi-turn", label="vLLM's multi-turn conversations", holds="messages",
        definition="a JSON array of id and messages",
        tools="vLLM 0.32.0, `benchmarks/multi_turn/benchmark_serving_multi_turn.py`",
        not_in_it="stamps, request names, system messages, tools",
        write=_write_multi_turn,
    ),
    Format(
        name="openai-batch", label="OpenAI's batch file", holds="messages",
        definition="JSON Lines of custom_id, method, url and body",
        tools="OpenAI's batch API; vLLM 0.32.0, `vllm run-batch`", not_in_it="stamps, last replies",
        read_as="log", write=_write_batch, options=("model",),
    ),
)  # fmt: skip
