"""The live check as one step: send, record, compare, and write the results."""

import contextlib
import json
from pathlib import Path

from kvprefix.files.csv_cells import guard_cells
from kvprefix.files.paths import atomic_path, hold_folder, tell, write_bytes
from kvprefix.live.compare import NO_COMPARISON, compare_recording
from kvprefix.live.findings import describe_comparison
from kvprefix.live.plot import draw_predicted_measured
from kvprefix.live.send import record_check
from kvprefix.report.plots.axes import save_figure

FOLDER = "engine_check"  # below the report's


def check_engine(check, requests, output_dir, source, *, restart=False, reset=False, tell=tell, progress=True):
    """Send requests to a server and write `engine_check/`: recording, comparison, summary, figure.

    Parameters
    ----------
    check, requests, source, restart, reset, tell, progress
        As in `send.record_check`.
    output_dir : path-like
        The report's folder.

    Returns
    -------
    dict
        The summary of `compare.compare_recording`, and the `sentence` that states it.

    Raises
    ------
    InputError
        As `record_check`; if another check works in the folder.
    """
    folder = Path(output_dir) / FOLDER
    with hold_folder(output_dir):
        is_new = not folder.exists()
        try:
            recording = record_check(
                check, requests, folder / "recording.jsonl", source, restart=restart, reset=reset, tell=tell,
                progress=progress,
            )  # fmt: skip
            return _write_found(recording, folder)
        finally:
            if is_new:  # remove it if it is empty: the server was not reached
                with contextlib.suppress(OSError):
                    folder.rmdir()


def find_exit_code(summary):
    """Return the exit code of `check`: 0 if all compared requests agree, 3 if some differ, 4 if none can be compared.

    >>> find_exit_code({"verdict": "differ", "differ": 1}), find_exit_code({"verdict": "void", "differ": 0})
    (3, 4)
    """
    return 4 if summary["verdict"] in NO_COMPARISON else 3 if summary["differ"] else 0


def _write_found(recording, folder):
    """Write the comparison, summary and figure of a recording; return the summary with its sentence."""
    frame, summary = compare_recording(recording)
    with atomic_path(folder / "comparison.csv") as temporary:
        guard_cells(frame).to_csv(temporary, index=False, lineterminator="\n")
    said = {**summary, "sentence": describe_comparison(summary)}
    write_bytes(folder / "summary.json", json.dumps(said, indent=1, allow_nan=False) + "\n")
    figure, data = draw_predicted_measured(frame)
    caption = f"Predicted and measured cached tokens. {said['sentence']}"
    save_figure(figure, data, caption, folder / "predicted_measured")
    return said
