"""Traces and logs of other tools, read and written.

A format knows its own fields; what is measured of a trace is elsewhere.
"""
