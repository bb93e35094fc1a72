"""Tables of many replays, made as tasks and kept: what a parameter, a capacity or an engine changes.

Numbers only: figures and sentences are made in `report`.
"""
