"""Comparison: lay reports beside each other, from the files of their folders. Nothing is replayed or measured again.

`folders` says what may be read and written, `read` reads and checks a report, `parameters`, `rates`, `curves` and
`findings` compare, and `write` makes the comparison's folder.
"""
