r"""The paper kit, `reports/NAME/paper/`: what a LaTeX, Markdown or Word document takes from a report without mending.

Figures are drawn by `sections`; here are their floats, those of the tables, the numbers as macros, and one article of
all of it. Nothing is measured here.
"""
