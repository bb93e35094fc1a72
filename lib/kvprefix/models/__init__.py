"""What a model takes: bytes of KV cache, blocks of a card, seconds of prefill, dollars.

It knows no trace and no cache: lengths, hit rates and seconds saved are given.
"""
