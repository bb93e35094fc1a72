"""Put the pictures of a report folder into its page: only those of the report's own folders, and small."""

import base64
import io
import re

from PIL import Image

from kvprefix.files.paths import InputError
from kvprefix.report.plots.axes import STYLE

_OWN = re.compile(r"(figures|paper)/[\w-][\w.-]*\.png")
SHOWN_DPI = 150  # of a page at its full width
STACKED = 1.3  # times as high as wide: panels on top of each other


def embed_picture(folder, source, narrower_than=None):
    """Return a picture as an image element needs it, `src`, `width` and `height`; None if the report has none such.

    Parameters
    ----------
    folder : pathlib.Path
        The report's.
    source : str
        Its place in the folder, below `figures/` or `paper/`.
    narrower_than : int, optional
        A width; a picture that is as wide is none such.

    Raises
    ------
    InputError
        If the file is no picture.

    Notes
    -----
    Its colours are reduced to 256, of which a figure has few more: a third of the bytes, and no difference to the eye.
    """
    path = folder / source
    if not _OWN.fullmatch(source) or path.is_symlink() or not path.is_file():
        return None
    try:
        with Image.open(path, formats=["PNG"]) as picture:
            width, height = (size * SHOWN_DPI // STYLE["savefig.dpi"] for size in picture.size)
            if narrower_than is not None and width >= narrower_than:
                return None
            palette = picture.convert("RGB").quantize(256, method=Image.Quantize.FASTOCTREE)
    except (OSError, SyntaxError) as error:
        raise InputError(f"{path}: is no PNG; make the report again") from error
    file = io.BytesIO()
    palette.save(file, "PNG")
    encoded = base64.b64encode(file.getvalue()).decode("ascii")
    return {"src": f"data:image/png;base64,{encoded}", "width": width, "height": height}


def choose_small(folder, name):
    """Return the picture of a figure that is still legible when small: for a column, unless its panels are stacked."""
    column = f"paper/{name}-column.png"
    shown = embed_picture(folder, column)
    return column if shown and shown["height"] <= STACKED * shown["width"] else f"figures/{name}.png"
