"""Disk, network and text from outside: whole-or-nothing writes, JSON Lines, locks, checks, escapes.

It does not know any conversation, token or block.
"""
