"""The eviction policies, a module each: its rule, to be read alone, and its entry.

No replay and no other policy is known here.
"""
