"""The eviction policies, one module per policy: its rule, which can be read alone, and its entry.

No replay and no other policy is known here.
"""
