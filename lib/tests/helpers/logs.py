"""A log of requests as a trace with tokens, in one step."""

from kvprefix.formats.traffic_trace import read_chats
from kvprefix.tokens.tokenizer import find_tokenizer


def read_log_trace(path, tokenizer="bundled", **options):
    return read_chats(path, find_tokenizer(tokenizer), **{"progress": False, **options})
