"""Figures, tables, sentences and sections, and the report that notebooks make of them.

Nothing is measured here.
"""
