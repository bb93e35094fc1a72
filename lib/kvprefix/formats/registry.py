"""Every format that is read or written, one entry per format; help, errors and the table of formats are made of them.

To add a format, write its reader and writer and list its entry in `token_formats` or `block_formats`; a format of a
user's own is registered from anywhere. Nothing heavy is imported before a format is used.
"""

from kvprefix.formats import block_formats, token_formats

FORMATS = {}


def register(one):
    """Add a format, or replace the one of the same name: it is then known everywhere.

    Parameters
    ----------
    one : Format
    """
    FORMATS[one.name] = one


for _one in (*token_formats.ENTRIES, *block_formats.ENTRIES):
    register(_one)
