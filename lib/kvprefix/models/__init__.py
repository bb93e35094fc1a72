"""Bytes of KV cache per token of a model, so that blocks can be shown as GiB.

It knows no trace and no cache.
"""
