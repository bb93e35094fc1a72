"""The data files that each notebook writes beside its figures and tables: those that a report may lack."""

from kvprefix.report.section_files import SHARING

_MODES, _FIGURES = ("single_turn", "multi_turn"), (
    "sharing_fraction_cdf", "block_hit_distribution", "reuse_gap_cdf", "comparison",
)  # fmt: skip
_TABLES = ("stats.json", "request_metrics.csv", "block_metrics.csv")
WRITES = {
    SHARING: [
        *(f"{mode}_{part}" for mode in _MODES for part in (*_TABLES, "trace.jsonl")),
        *(f"{figure}{suffix}" for figure in _FIGURES for suffix in (".png", ".pdf")),
    ],
    "15-agents": [f"multi_turn_{part}" for part in _TABLES],
    "25-provenance": ["provenance.json", "provenance_requests.csv"],
    "45-templates": ["templates.json"],
    "55-misses": ["misses.json", "misses_requests.csv"],
    "65-advice": ["lint.json", "lint_requests.csv"],
    "80-capacity-plan": ["plan.json"],
}
