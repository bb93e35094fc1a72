"""Figures: how each is drawn, in one style, at a column's and at a page's width. No numbers are made here."""
