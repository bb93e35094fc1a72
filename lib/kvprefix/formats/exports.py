"""Write the messages of a log in the forms that serving benchmarks read: vLLM's two, and OpenAI's batch file.

Each function returns what it dropped or added, in words.
"""

import json

from kvprefix.conversations.records import make_unique
from kvprefix.files.jsonlines import write_lines
from kvprefix.files.paths import InputError
from kvprefix.files.progress import show_progress
from kvprefix.files.words import count
from kvprefix.formats.chat_threads import make_chains, thread_requests
from kvprefix.tokens.chat import TemplateRefusal
from kvprefix.tokens.template import load_chat

_encode = json.JSONEncoder(ensure_ascii=False).encode
_FILLER = " a"  # a word that is one token of most vocabularies


def write_openai_batch(log, path, *, model="default", progress=True):
    """Write OpenAI's batch file, as `vllm run-batch` and OpenAI's API read it: a line per request, in arrival order.

    Parameters
    ----------
    log : RequestLog
    path : path-like
    model : str
        For requests that name none.
    progress : bool

    Notes
    -----
    `max_tokens` is how many tokens were generated if the log says so, else the log's own `max_tokens`.
    """

    def make(request):
        body = {"model": request.model or model, "messages": _as_dicts(request.messages)}
        most = request.output_tokens or request.max_tokens
        if most:
            body["max_tokens"] = most
        return {"custom_id": request.name, "method": "POST", "url": "/v1/chat/completions", "body": body}

    _write_each(map(make, log.requests), len(log), path, progress)
    notes = ["dropped: arrival times; names and turns of conversations (they show in the messages); their last replies"]
    unnamed = sum(not request.model for request in log.requests)
    unknown = sum(not (request.output_tokens or request.max_tokens) for request in log.requests)
    if unnamed:
        notes.append(f"{count(unnamed, 'request')} without a model: {model!r} is written (--model gives another)")
    if unknown:
        notes.append(f"{count(unknown, 'request')} whose number of generated tokens is not known: without max_tokens")
    return notes


def write_vllm_custom(log, path, source, *, progress=True):
    """Write what `vllm bench serve --dataset-name custom` reads: `{"prompt": text, "output_tokens": n}` per request.

    Parameters
    ----------
    log : RequestLog
    path : path-like
        vLLM reads no file that is not named `.jsonl`.
    source : TokenizerSource
        Its chat template renders the prompts.
    progress : bool

    Raises
    ------
    InputError
        A template that refuses every request.

    Notes
    -----
    The prompt is the template's whole text, ready for the reply, so it must be sent as it is: ``--skip-chat-template
    --custom-output-len -1 --disable-shuffle --backend openai --endpoint /v1/completions``. vLLM wants a number of
    output tokens for every request: if the log says none, 1 is written.
    """
    chat, refused, reason, unknown = load_chat(source), 0, None, 0

    def make():
        nonlocal refused, reason, unknown
        for request, output_tokens in zip(log.requests, count_outputs(log, chat), strict=True):
            try:
                prompt = chat.render([_as_dicts(request.messages)])[0]
            except TemplateRefusal as refusal:
                refused, reason = refused + 1, refusal
                yield None
                continue
            unknown += not output_tokens
            yield {"prompt": prompt, "output_tokens": output_tokens or 1}
        if refused == len(log):
            raise InputError(f"tokenizer {source.name}: its chat template refuses every request: {reason}")

    _write_each(make(), len(log), path, progress)
    notes = ["dropped: arrival times, names, conversations and turns; replies (their lengths stay)"]
    if refused:
        notes.append(f"dropped: {count(refused, 'request')} that the chat template refuses: {reason}")
    if unknown:
        notes.append(f"{count(unknown, 'request')} whose number of generated tokens is not known: 1 is written")
    return notes


def count_outputs(log, chat):
    """Return how many tokens each request generated, its end-of-turn token included; 0 if that is not known.

    The log's own number if it has one, else the reply's tokens.
    """
    texts = [request.reply for request in log.requests if not request.output_tokens and request.reply is not None]
    lengths = iter([len(ids) + (chat.end_of_turn is not None) for ids in chat.encode(texts)])
    return [r.output_tokens or (0 if r.reply is None else next(lengths)) for r in log.requests]


def write_vllm_multi_turn(log, path, *, progress=True):
    """Write what vLLM's benchmark_serving_multi_turn.py reads: a JSON array of `{"id", "messages"}` per conversation.

    Parameters
    ----------
    log : RequestLog
    path : path-like
    progress : bool

    Raises
    ------
    InputError
        No conversation that begins with a user's message and its reply.

    Notes
    -----
    The script sends messages 1, 1-3, 1-5, ... and wants them to be a user's and an assistant's in turn, an assistant's
    last. Of the replies it takes the length only, and continues with what its server answers. So a system message is
    left out, and a conversation ends where two messages of one role follow each other. If the last reply's text is not
    known, a filler of one word per token, except the end of turn, tells its length.
    """
    counts = dict.fromkeys(("system", "cut", "filled", "dropped", "messages"), 0)
    threads, numbers, names, conversations = thread_requests(log.requests), set(), {}, []
    for chain in sorted(make_chains(log.requests, threads.previous), key=lambda chain: chain.path[0]):
        messages, filler = _alternate(chain.messages, log.requests[chain.path[-1]], counts)
        if not messages:
            counts["dropped"] += 1
            continue
        number = threads.conversation[chain.path[-1]]
        numbers.add(number)
        name = make_unique(threads.names[number], names)
        conversations.append((name, messages, filler))
    if not conversations:
        raise InputError(f"{log.info['trace']}: has no conversation of a user's message and a reply of known length")
    with write_lines(path) as file, show_progress(len(conversations), "writing", " items", shown=progress) as bar:
        for k, (name, messages, filler) in enumerate(conversations):
            said = _as_dicts(messages)
            if filler:
                said.append({"role": "assistant", "content": (_FILLER * filler).strip()})
            file.write((",\n" if k else "[\n").encode() + _encode({"id": name, "messages": said}).encode())
            bar.update()
        file.write(b"\n]\n")
    said = {
        f"{count(len(conversations), 'conversation')} are written": True,
        f"{count(len(conversations) - len(numbers), 'branch', 'branches')} among them, with an id of its own each":
            len(conversations) > len(numbers),
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


def _alternate(messages, last, counts):
    """Return the messages that the script takes, a user's and an assistant's in turn, and the words of a filler."""
    if messages[0].role == "system":
        counts["system"] += 1
        messages = messages[1:]
    n = 0
    while n < len(messages) and messages[n].role == ("user", "assistant")[n % 2]:
        n += 1
    kept = messages[: n - n % 2]
    if n % 2 and n == len(messages) and last.output_tokens:
        counts["filled"] += 1
        return messages, max(last.output_tokens - 1, 1)
    if kept and len(kept) < len(messages):
        counts["cut"] += 1
        counts["messages"] += len(messages) - len(kept)
    return kept, 0


def _as_dicts(messages):
    return [{"role": message.role, "content": message.text} for message in messages]
