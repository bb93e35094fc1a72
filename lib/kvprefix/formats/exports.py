"""Write the calls of a log in the forms that serving benchmarks read: vLLM's two, and OpenAI's batch file.

Each function returns what it dropped or added, in words.
"""

import json

from kvprefix.conversations.calls import ENDPOINTS
from kvprefix.conversations.records import make_unique
from kvprefix.files.jsonlines import write_lines
from kvprefix.files.paths import InputError
from kvprefix.files.progress import show_progress
from kvprefix.files.words import count
from kvprefix.formats.call_threads import make_chains
from kvprefix.tokens.calls import encode_calls
from kvprefix.tokens.prompts import render_call
from kvprefix.tokens.template import open_call_chat

CALLS_AT_A_TIME = 1024
_encode = json.JSONEncoder(ensure_ascii=False).encode
_FILLER = " a"  # a word that is one token of most vocabularies
_LIMITS = ("max_tokens", "max_completion_tokens", "max_output_tokens")
_STREAMING = ("stream", "stream_options")


def write_openai_batch(log, path, *, model="default", progress=True):
    """Write OpenAI's batch file, as `vllm run-batch` and OpenAI's API read it: a line per request, in arrival order.

    Parameters
    ----------
    log : CallLog
    path : path-like
    model : str
        For requests that name none.
    progress : bool

    Notes
    -----
    `max_tokens` (of Responses `max_output_tokens`) is how many tokens were generated if the log says so, else what the
    request allowed. A batch is not streamed. Bodies of Anthropic's endpoint stay as they are, under its `url`.
    """

    def make(call):
        body = {"model": call.model or model, "messages": None, **call.body}
        body = {name: value for name, value in body.items() if name not in (*_LIMITS, *_STREAMING)}
        body = {**body, "model": call.model or model}
        if call.api == "responses":
            del body["messages"]
        if most := _find_most(call):
            body["max_output_tokens" if call.api == "responses" else "max_tokens"] = most
        return {"custom_id": call.name, "method": "POST", "url": ENDPOINTS[call.api], "body": body}

    _write_each(map(make, log.calls), len(log), path, progress)
    notes = ["dropped: arrival times; names and turns of conversations (they show in the messages); their last replies"]
    unnamed = sum(not call.model for call in log.calls)
    unknown = sum(not _find_most(call) for call in log.calls)
    foreign = sum(call.api == "messages" for call in log.calls)
    if unnamed:
        notes.append(f"{count(unnamed, 'request')} without a model: {model!r} is written (--model gives another)")
    if unknown:
        notes.append(f"{count(unknown, 'request')} whose number of generated tokens is not known: without max_tokens")
    if foreign:
        notes.append(f"{count(foreign, 'request')} of Anthropic's endpoint, which OpenAI's API does not have")
    return notes


def _find_most(call):
    """Return how many tokens a call generated, else the most that it allowed; None if the log says neither."""
    allowed = next((call.body[name] for name in _LIMITS if call.body.get(name)), None)
    return call.usage.output or allowed


def write_vllm_custom(log, path, source, *, server="vllm", progress=True):
    """Write what `vllm bench serve --dataset-name custom` reads: `{"prompt": text, "output_tokens": n}` per request.

    Parameters
    ----------
    log : CallLog
    path : path-like
        vLLM reads no file that is not named `.jsonl`.
    source : TokenizerSource
        Its chat template renders the prompts.
    server : str
        Whose rules make prompts of bodies.
    progress : bool

    Raises
    ------
    InputError
        A server, or a template, that refuses every request.

    Notes
    -----
    The prompt is the template's whole text, ready for the reply, so it must be sent as it is: ``--skip-chat-template
    --custom-output-len -1 --disable-shuffle --backend openai --endpoint /v1/completions``. vLLM wants a number of
    output tokens for every request: if the log says none, it is that of the reply's tokens, else 1.
    """
    chat, refused, unknown = open_call_chat(source, log.calls), {}, 0

    def make():
        nonlocal unknown
        for start in range(0, len(log), CALLS_AT_A_TIME):
            calls = log.calls[start : start + CALLS_AT_A_TIME]
            encoded = encode_calls(calls, chat, server)
            for reason, lost in encoded.refused.items():
                known = refused.get(reason)
                refused[reason] = known._replace(count=known.count + lost.count) if known else lost
            replies = encoded.table["output_tokens"].combine_chunks().value_lengths().to_pylist()
            lengths = dict(zip(encoded.table["call"].to_pylist(), replies, strict=True))
            for k, call in enumerate(calls):
                if k not in lengths:
                    yield None
                    continue
                output_tokens = call.usage.output or lengths[k]
                unknown += not output_tokens
                yield {"prompt": render_call(call, chat, server), "output_tokens": output_tokens or 1}
        if sum(lost.count for lost in refused.values()) == len(log):
            said = "; ".join(lost.said for lost in refused.values())
            raise InputError(f"tokenizer {source.name}: its chat template refuses every request: {said}")

    _write_each(make(), len(log), path, progress)
    notes = ["dropped: arrival times, names, conversations and turns; replies (their lengths stay)"]
    for reason, lost in refused.items():
        who = reason if reason == "the chat template" else f"the server ({reason})"
        notes.append(f"dropped: {count(lost.count, 'request')} that {who} refuses: {lost.said}")
    if unknown:
        notes.append(f"{count(unknown, 'request')} whose number of generated tokens is not known: 1 is written")
    return notes


def write_vllm_multi_turn(log, path, *, progress=True):
    """Write what vLLM's benchmark_serving_multi_turn.py reads: a JSON array of `{"id", "messages"}` per conversation.

    Parameters
    ----------
    log : CallLog
    path : path-like
    progress : bool

    Raises
    ------
    InputError
        No conversation that begins with a user's message and its reply.

    Notes
    -----
    The script sends messages 1, 1-3, 1-5, ... and wants them to be texts of a user and an assistant in turn, an
    assistant's last. Of the replies it takes the length only, and continues with what its server answers. So a system
    message is left out, and a conversation ends where two messages of one role follow each other, or one is more than
    text. If the last reply's text is not known, a filler of one word per token, except the end of turn, tells its
    length.
    """
    counts = dict.fromkeys(("system", "cut", "filled", "dropped", "messages"), 0)
    firsts, names, conversations = set(), {}, []
    for chain in make_chains(log.calls):
        turns, filler = _alternate(chain.turns, log.calls[chain.path[-1]], counts)
        if not turns:
            counts["dropped"] += 1
            continue
        firsts.add(chain.name)
        conversations.append((make_unique(chain.name, names), turns, filler))
    if not conversations:
        raise InputError(f"{log.info['trace']}: has no conversation of a user's message and a reply of known length")
    with write_lines(path) as file, show_progress(len(conversations), "writing", " items", shown=progress) as bar:
        for k, (name, turns, filler) in enumerate(conversations):
            said = [{"role": role, "content": text} for role, text in turns]
            if filler:
                said.append({"role": "assistant", "content": (_FILLER * filler).strip()})
            file.write((",\n" if k else "[\n").encode() + _encode({"id": name, "messages": said}).encode())
            bar.update()
        file.write(b"\n]\n")
    said = {
        f"{count(len(conversations), 'conversation')} are written": True,
        f"{count(len(conversations) - len(firsts), 'branch', 'branches')} among them, with an id of its own each":
            len(conversations) > len(firsts),
        "dropped: arrival times and names of requests": True,
        f"dropped: system messages of {count(counts['system'], 'conversation')}": counts["system"],
        f"dropped: {count(counts['messages'], 'message')} of {count(counts['cut'], 'conversation')}, from where two of "
        "one role follow each other, or the last reply is not known": counts["cut"],
        f"dropped: {count(counts['dropped'], 'conversation')} without a question and a reply": counts["dropped"],
        f"{count(counts['filled'], 'last reply', 'last replies')} of known length only: as many words stand for it":
            counts["filled"],
    }  # fmt: skip
    return [text for text, applies in said.items() if applies]


def _write_each(lines, n, path, progress):
    """Write objects as JSON Lines, whole or not at all: one for each of n requests, None for one that is left out."""
    with write_lines(path) as file, show_progress(n, "writing", " requests", shown=progress) as bar:
        for line in lines:
            if line is not None:
                file.write(_encode(line).encode() + b"\n")
            bar.update()


def _alternate(turns, last, counts):
    """Return the turns that the script takes, a user's and an assistant's in turn, and the words of a filler."""
    if turns[0][0] == "system":
        counts["system"] += 1
        turns = turns[1:]
    n = 0
    while n < len(turns) and turns[n][0] == ("user", "assistant")[n % 2] and turns[n][1] is not None:
        n += 1
    kept = turns[: n - n % 2]
    if n % 2 and n == len(turns) and last.usage.output:
        counts["filled"] += 1
        return turns, max(last.usage.output - 1, 1)
    if kept and len(kept) < len(turns):
        counts["cut"] += 1
        counts["messages"] += len(turns) - len(kept)
    return kept, 0
