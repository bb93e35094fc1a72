"""Metrics of a replay, their intervals, and resampled conversations.

It counts and rates; it draws and says nothing.
"""
