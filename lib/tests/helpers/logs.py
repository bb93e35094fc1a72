"""A log of requests as a trace with tokens, in one step."""

from kvprefix.formats.chat_log import read_log
from kvprefix.formats.chat_trace import tokenise_log
from kvprefix.tokens.tokenizer import find_tokenizer


def read_log_trace(path, tokenizer="bundled", *, progress=True):
    return tokenise_log(read_log(path, progress=progress), find_tokenizer(tokenizer), progress=progress)
