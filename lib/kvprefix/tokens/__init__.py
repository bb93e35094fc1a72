"""Tokenizers, chat templates, encoding, and the store of token ids in flat arrays.

No arrival times and no blocks here.
"""
