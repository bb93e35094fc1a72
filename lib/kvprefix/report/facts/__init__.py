"""Facts: what each notebook found, as plain JSON values and tables. No sentence and no figure is made here."""
