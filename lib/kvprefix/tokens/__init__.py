"""Tokenizers, chat templates, encoding, and the store of token ids in flat arrays.

It knows no arrival times and no blocks.
"""
