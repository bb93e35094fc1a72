"""Show a recorded check of a live server in the report."""

from kvprefix.files.escape import escape_markdown
from kvprefix.live.compare import compare_recording
from kvprefix.live.findings import describe_comparison
from kvprefix.live.plot import draw_predicted_measured
from kvprefix.live.recording import read_recording


def show_recording(section):
    """Show what a live server reported beside what was predicted, where `make engine-check` has recorded it."""
    path = section.folder / "engine_check" / "recording.jsonl"
    if not path.exists():
        text = (
            "This report has no recording of a server. `make engine-check URL=http://...`, with the parameters of this report, sends its first "
            "requests to a server and records what it reports; the next report shows it here."
        )
        section.say("A live server", text)
        return
    frame, summary = compare_recording(read_recording(path))
    notes = "".join(f"\n- {escape_markdown(warning)}" for warning in [*summary["causes"], *summary["warnings"]])
    section.say("A live server", f"{escape_markdown(describe_comparison(summary))}{notes and chr(10) + notes}")
    figure, data = draw_predicted_measured(frame)
    caption = "Cached tokens of each request, predicted by the replay and reported by a live server."
    section.show_figure("live", figure, data, caption)
