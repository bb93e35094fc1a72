"""The live check as one step: send, record, compare, and write what was found."""

import json
from pathlib import Path

from kvprefix.comparison import compare_recording, describe_comparison
from kvprefix.csvcells import guard_cells
from kvprefix.files import atomic_path, write_bytes
from kvprefix.plot import save_figure
from kvprefix.plot_engine import draw_predicted_measured
from kvprefix.servercheck import record_check

FOLDER = "engine_check"  # below the report's


def check_engine(check, requests, output_dir, source, *, restart=False, reset=False, tell=print, progress=True):
    """Send requests to a server and write `engine_check/`: recording, comparison, summary, figure.

    Parameters
    ----------
    check, requests, source, restart, reset, tell, progress
        As in `servercheck.record_check`.
    output_dir : path-like
        The report's folder.

    Returns
    -------
    dict
        The summary of `comparison.compare_recording`.
    """
    folder = Path(output_dir) / FOLDER
    recording = record_check(
        check, requests, folder / "recording.jsonl", source, restart=restart, reset=reset, tell=tell, progress=progress
    )
    frame, summary = compare_recording(recording)
    with atomic_path(folder / "comparison.csv") as temporary:
        guard_cells(frame).to_csv(temporary, index=False, lineterminator="\n")
    said = {**summary, "sentence": describe_comparison(summary)}
    write_bytes(folder / "summary.json", json.dumps(said, indent=1, allow_nan=False) + "\n")
    figure, data = draw_predicted_measured(frame)
    caption = f"Predicted and measured cached tokens. {said['sentence']}"
    save_figure(figure, data, caption, folder / "predicted_measured")
    return said
