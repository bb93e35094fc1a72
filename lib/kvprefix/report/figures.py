"""The four figures whose names are fixed: the function that draws each; saving them all without a notebook."""

from kvprefix.report.captions import caption_figure
from kvprefix.report.plot import (
    complete_caption,
    draw_comparison,
    draw_gap_cdf,
    draw_hit_distribution,
    draw_sharing_cdf,
    save_figure,
)

FIGURES = {
    "sharing_fraction_cdf": draw_sharing_cdf,
    "block_hit_distribution": draw_hit_distribution,
    "reuse_gap_cdf": draw_gap_cdf,
    "comparison": draw_comparison,
}


def draw_figures(results, folder):
    """Draw and save the four figures, each as PNG and PDF with its numbers (CSV) and its caption (text)."""
    stats = {mode: result.stats for mode, result in results.items()}
    for name, draw in FIGURES.items():
        figure, data = draw(results)
        save_figure(figure, data, complete_caption(caption_figure(name, stats), figure), folder / name)
