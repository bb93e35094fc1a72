"""Disk, network and text from outside: whole-or-nothing writes, JSON Lines, locks, checks, escapes.

It knows no conversation, token or block.
"""
