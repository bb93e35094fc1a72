"""The report as a reader sees it: all sections on one page, in Markdown and in HTML. Nothing is measured here."""
