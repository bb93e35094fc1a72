"""Choose what turns texts into token ids: a fast encoder where it proves itself, else the Hugging Face tokenizer.

The Hugging Face tokenizer is the reference. `fastokens` has to give its ids on odd strings and on a sample of the data,
once for a tokenizer and the versions; `template` keeps the outcome. So ids never depend on the encoder.
"""

import functools
import unicodedata
from importlib import metadata
from typing import NamedTuple

import numpy as np

PROOF_VERSION = 3  # raise when the proof changes
SAMPLE = 200  # texts of the data in the proof
_BATCH = 16384  # texts that the reference encodes together
_BESIDE = ("", " ", "a", "\n", "1", "\u0301", "<", ">")


class Encoder(NamedTuple):
    """What turns texts into ids.

    Attributes
    ----------
    name : str
        Its package and version, as in ``"fastokens 0.3.5"``.
    encode : callable
        ``encode(texts)`` returns the token ids of all texts, one after the other (int32), and the n + 1 places (int64)
        where each begins and the last one ends. No special token is added; those in a text are found.
    """

    name: str
    encode: object


def refer(tokenizer):
    """Return the reference encoder of a Hugging Face tokenizer."""
    kind = "tokenizers" if tokenizer.is_fast else "transformers"
    return Encoder(f"{kind} {metadata.version(kind)}", functools.partial(_encode_by_reference, tokenizer))


def find_version():
    """Return the version of the fast encoder that is installed, or None: not every machine has a wheel of it."""
    try:
        return metadata.version("fastokens")
    except metadata.PackageNotFoundError:
        return None


def find_reason(build, tokenizer, texts):
    """Return why the fast encoder of a tokenizer cannot be used: an empty reason if it gives the same ids.

    Parameters
    ----------
    build : callable
        ``build()`` returns the fast Encoder.
    tokenizer : PreTrainedTokenizerBase
        The reference.
    texts : sequence of str
        Of the data; the first SAMPLE are compared, and `list_odd_texts`.
    """
    try:
        return compare_encoders(build(), refer(tokenizer), [*list_odd_texts(tokenizer), *texts[:SAMPLE]])
    except Exception as error:  # it refuses a tokenizer that it does not know with many kinds of error
        return " ".join(str(error).split())[:200] or type(error).__name__


def compare_encoders(fast, reference, texts):
    """Return how two encoders differ on texts: an empty reason if they do not."""
    (ids, stops), (right, ends) = fast.encode(texts), reference.encode(texts)
    if np.array_equal(ids, right) and np.array_equal(stops, ends):
        return ""
    k = next(
        k for k in range(len(texts))
        if not np.array_equal(ids[stops[k] : stops[k + 1]], right[ends[k] : ends[k + 1]])
    )  # fmt: skip
    return f"{fast.name} gives other ids on {ascii(texts[k][:40])}"


def build_fast(file, version):
    """Return the fast encoder of a tokenizer's file, one that neither truncates nor pads.

    It raises an error of its own if it does not know one of the tokenizer's parts.
    """
    import fastokens

    return Encoder(f"fastokens {version}", functools.partial(_encode_fast, fastokens.Tokenizer.from_file(str(file))))


def _encode_fast(tokenizer, texts):
    ids, stops = tokenizer.encode_batch_flat(texts)
    return np.frombuffer(ids, np.uint32).view(np.int32), np.frombuffer(stops, np.uint64).view(np.int64)


def _encode_by_reference(tokenizer, texts):
    if tokenizer.is_fast:
        encode = tokenizer.backend_tokenizer.encode_batch_fast
        batches = [texts[k : k + _BATCH] for k in range(0, len(texts), _BATCH)]
        ids = [np.fromiter(one.ids, np.int32) for b in batches for one in encode(b, add_special_tokens=False)]
    else:
        lists = tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else []
        ids = [np.array(one, np.int32) for one in lists]
    stops = np.zeros(len(ids) + 1, np.int64)
    np.cumsum([len(one) for one in ids], out=stops[1:])
    return np.concatenate([*ids, np.zeros(0, np.int32)]), stops


def list_odd_texts(tokenizer):
    """Return texts on which encoders may differ: of every part of Unicode, of white space, of special tokens.

    Every run of 256 code points, assigned or not, gives a text, alone and with combining marks; half surrogates, which
    no text of the library holds, are left out.
    """
    starts = [start for start in range(0, 0x110000, 256) if not 0xD800 <= start < 0xE000]
    runs = ["".join(map(chr, range(start, start + 256, 5))) for start in starts]
    marked = [f"{one}\u0301\u0323 {one[:8]}\u200d{one[8:16]}" for one in runs]
    forms = [unicodedata.normalize(form, one) for one in runs[:64] for form in ("NFD", "NFKC")]
    marks = [chr(point) for point in range(0x20000) if unicodedata.combining(chr(point))]
    marked += ["".join(f"a{one}" for one in marks[k : k + 64]) for k in range(0, len(marks), 64)]
    added = [token.content for token in tokenizer.added_tokens_decoder.values()][:64]
    special = [f"{before}{token}{after}" for token in added for before in _BESIDE for after in _BESIDE]
    special += [token[: len(token) // 2] for token in added] + [f"{token}{token.upper()}" for token in added]
    white = [f"a{gap}b{gap}" for one in " \n\t\r\u00a0\u3000\u2028" for n in (1, 2, 3, 7, 80) for gap in (one * n,)]
    plain = [
        "", "a" * 2000, "ab" * 1500, " " * 1000, "1234567890" * 30, "don't WON'T I'Ll x'S", "\r\n\r\n a\n\n b \n",
        "0x1F,600", "\U0001f468\u200d\U0001f469\u200d\U0001f467\U0001f3fd", "\u1100\u1161\u11a8", "e\u0301" * 50,
        "\x00\x01\x7f\x85",
    ]  # fmt: skip
    return [*plain, *white, *special, *forms, *runs, *marked]
