"""Make a fast tokenizer from a vocabulary in tiktoken's form: a token in base64 and its rank on each line.

`transformers` has a converter for it, `TikTokenConverter`. It gives the same tokenizer and takes many times as long.
"""

import base64

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors


def make_from_ranks(path, pattern, special):
    """Return a byte-level BPE `tokenizers.Tokenizer`, which normalises texts (NFC) and cuts them by a pattern.

    Parameters
    ----------
    path : path-like
        The vocabulary.
    pattern : str
        A regular expression: a text is cut around its matches.
    special : list of str
        Special tokens: their ids follow those of the vocabulary.
    """
    names, merges = list_merges(read_ranks(path))
    backend = Tokenizer(models.BPE(names, merges, fuse_unk=False, ignore_merges=True))
    backend.normalizer = normalizers.NFC()
    cut = pre_tokenizers.Split(Regex(pattern), behavior="isolated", invert=False)
    backend.pre_tokenizer = pre_tokenizers.Sequence([cut, pre_tokenizers.ByteLevel(False, use_regex=False)])
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in special])
    backend.post_processor = processors.ByteLevel(trim_offsets=False)
    return backend


def read_ranks(path):
    """Return the ranks of the tokens, {bytes: int}, in the file's order."""
    with open(path, "rb") as file:
        return {base64.b64decode(token): int(rank) for token, rank in (line.split() for line in file if line.strip())}


def list_merges(ranks):
    """Return {token: rank} and the pairs that merge to a token, by its rank and theirs, as byte-level BPE writes bytes.

    A pair of known tokens whose bytes together are a known token merges to that one.

    >>> list_merges({b"a": 0, b" ": 1, b"aa": 2, b"aaa": 3})[1]
    [('a', 'a'), ('a', 'aa'), ('aa', 'a')]
    """
    letters = dict(enumerate(_list_letters()))
    names = {token: token.decode("latin-1").translate(letters) for token in ranks}
    merges = []
    for token, _ in sorted(ranks.items(), key=lambda item: item[1]):
        cuts = [cut for cut in range(1, len(token)) if token[:cut] in ranks and token[cut:] in ranks]
        if len(cuts) > 1:
            cuts.sort(key=lambda cut: (ranks[token[:cut]], ranks[token[cut:]]))
        merges += [(names[token[:cut]], names[token[cut:]]) for cut in cuts]
    return {name: ranks[token] for token, name in names.items()}, merges


def _list_letters():
    """Return the character that byte-level BPE writes for each byte: printable ones are themselves."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte if byte in printable else next(others)) for byte in range(0x100)]
