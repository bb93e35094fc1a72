"""Remove data/derived/* and every report but those of the repository; nothing if a run uses one of them.

Any Python runs it, without the environment.
"""

import contextlib
import shutil
import sys
from pathlib import Path

from kvprefix.files.paths import IN_USE, InputError, hold_lock, plain_text

KEPT = {".gitkeep", "default", "agentic", "bench"}


def clean(project):
    """Remove them, under the locks of all."""
    derived, reports = project / "data" / "derived", project / "reports"
    folders = [path for path in reports.glob("*") if path.is_dir() and not path.is_symlink() and path.name not in KEPT]
    with contextlib.ExitStack() as locks:
        locks.enter_context(hold_lock(derived / IN_USE, f"{derived}: a run or an open notebook uses it; end it first"))
        for folder in folders:
            locks.enter_context(hold_lock(folder / ".lock", f"{folder}: a run is writing there; end it first"))
        for path in sorted([*derived.glob("*"), *reports.glob("*")]):
            if path.name not in KEPT | {IN_USE}:
                print(f"removing {plain_text(path.relative_to(project))}")
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


if __name__ == "__main__":
    try:
        clean(Path(__file__).resolve().parent.parent)
    except (InputError, OSError) as error:
        sys.exit(f"error: {plain_text(error)}")
