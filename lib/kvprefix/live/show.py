"""Show a recorded check of a live server in the report."""

from kvprefix.live.compare import compare_recording
from kvprefix.live.findings import WORDS, describe_comparison
from kvprefix.live.plot import draw_predicted_measured
from kvprefix.live.recording import read_recording


def show_recording(section):
    """Show what a live server reported beside what was predicted, if `make engine-check` has recorded it."""
    path = section.folder / "engine_check" / "recording.jsonl"
    if not path.exists():
        section.leave_out(WORDS.say("no_recording.txt", {}))
        return
    frame, summary = compare_recording(read_recording(path))
    said = {"sentence": describe_comparison(summary), "notes": [*summary["causes"], *summary["warnings"]]}
    section.say("A live server", WORDS.say("live.md", said))
    caption = "Cached tokens predicted by the replay and reported by a live server: (a) of each request, (b) summed up."
    section.show_figure("live", caption, draw_predicted_measured, frame)
