"""Read a report's folder for a comparison, and refuse one that is not whole: nothing in it is measured again."""

from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import csv

from kvprefix.files.csv_cells import unguard_cells
from kvprefix.files.paths import InputError, explain_os_errors
from kvprefix.report.comparison.folders import RESULT
from kvprefix.report.section_files import LEFT_OUT, SHARING, read_json
from kvprefix.traces.table import TABLE
from kvprefix.traces.workload import MODES

RATES = {  # by their path in the statistics: the label, and whether it is a share
    "token_hit_rate": ("token hit rate", True),
    "with_generated_tokens.token_hit_rate": ("token hit rate with generated tokens", True),
    "without_template_tokens.token_hit_rate": ("token hit rate without template", True),
    "sharing_fraction.mean": ("mean sharing fraction", True),
    "sharing_fraction.median": ("median sharing fraction", True),
    "block_reuse_rate": ("block reuse rate", True),
    "blocks_reused_fraction": ("blocks reused fraction", True),
    "block_hit_count.mean": ("mean block hit count", False),
}
_KEYS = (
    "mode", "requests", "prompt_tokens.total", "dataset.name", "dataset.conversations", "blocks.accesses",
    "blocks.distinct", "intervals", *RATES, *(f"parameters.{name}" for name, one in TABLE.items() if one.of != "plan"),
    "parameters.data_sha256",
    "parameters.tokenizer_sha256", "parameters.versions",
)  # fmt: skip
_REQUESTS = {
    "conversation_id": pa.string(), "turn": pa.int64(), "arrival_s": pa.float64(),
    **dict.fromkeys(["prompt_tokens", "prompt_blocks", "hit_blocks", "cached_tokens"], pa.int64()),
}  # fmt: skip
MORE = {  # columns of requests that reports have since these are kept: their names in `stats.paired`
    "cached_tokens_with_generated": "with_generated_tokens.cached",
    "prompt_tokens_no_template": "without_template_tokens.prompt",
    "cached_tokens_no_template": "without_template_tokens.cached",
}
_BLOCKS = {"accesses": pa.int64(), "first_access_s": pa.float64()}
FILES = {mode: [f"{mode}_{name}" for name in ("stats.json", "request_metrics.csv", "block_metrics.csv")]
         for mode in MODES}  # fmt: skip


@dataclass(frozen=True)
class Report:
    """What a report's folder holds.

    Attributes
    ----------
    label : str
        Its name in the comparison; no other report's.
    folder : pathlib.Path
    stats : dict
        Of mode to the content of `*_stats.json`; a trace of block ids has no single-turn mode.
    requests, blocks : dict
        Of mode to a DataFrame of `*_request_metrics.csv` and of `*_block_metrics.csv`, without the columns not used.
    facts : dict
        Of notebook to its facts, if they belong to the report's parameters.
    """

    label: str
    folder: Path
    stats: dict
    requests: dict = field(repr=False)
    blocks: dict = field(repr=False)
    facts: dict = field(repr=False)

    @property
    def parameters(self):
        """The parameters, with checksums and versions."""
        return self.stats[MODES[-1]]["parameters"]

    @property
    def lists_blocks(self):
        """Whether it is of a trace of block ids, which has no tokenizer."""
        return self.parameters["tokenizer_sha256"] is None

    @property
    def block_size(self):
        """Tokens per block."""
        return self.parameters["block_size"]

    def sharing_fraction(self, mode):
        """Return cached over prompt tokens of each request, (n_requests,) float64; 0 for an empty prompt."""
        requests = self.requests[mode]
        return (requests["cached_tokens"] / requests["prompt_tokens"].clip(lower=1)).to_numpy()

    def read_figure(self, notebook, slug, columns):
        """Return the numbers of a figure, or None if the notebook has not drawn it with the report's parameters.

        A folder that `kvprefix run` wrote has those of notebook 20 without a notebook.
        """
        number = notebook.partition("-")[0]
        path = self.folder / "figures" / f"{number}-{slug}.csv"
        if notebook == SHARING and not path.exists():
            path = self.folder / f"{slug.replace('-', '_')}.csv"
        elif notebook not in self.facts:
            return None
        if not path.exists():
            return None
        try:
            with explain_os_errors(path):
                frame = pd.read_csv(path)
        except ValueError as error:
            if isinstance(error, InputError):
                raise
            raise refuse_cut(path, self.label) from error
        lacking = [name for name in columns if name not in frame]
        if lacking:
            raise _refuse_old(path, lacking, self.label)
        return frame


def list_modes(reports):
    """Return the modes that all of some reports have."""
    return [mode for mode in MODES if all(mode in one.stats for one in reports)]


def read_report(folder, label):
    """Read and check a report's folder.

    Returns
    -------
    Report

    Raises
    ------
    InputError
        The folder is no report, is half made (a file is missing, cut, or of another run), or of an older version.
    """
    left_out = (folder / LEFT_OUT).read_text(encoding="utf-8").split() if (folder / LEFT_OUT).is_file() else []
    modes = [mode for mode in MODES if f"{mode}_stats.json" not in left_out]
    files = [name for mode in modes for name in FILES[mode]]
    there = [name for name in files if (folder / name).is_file()]
    if not there:
        what = "a comparison, not a report" if (folder / RESULT).is_file() else "no report: it has no *_stats.json"
        raise InputError(f"{folder}: is {what}; expected a folder that make report wrote")
    for name in files:
        if name not in there:
            raise InputError(
                f"{folder / name}: is missing, so the report is half made; make report NAME={label} again"
            )
    stats = {mode: _read_stats(folder / f"{mode}_stats.json", mode, label) for mode in modes}
    requests, blocks = {}, {}
    for mode in modes:
        paths = [folder / f"{mode}_{name}_metrics.csv" for name in ("request", "block")]
        requests[mode] = _read_table(paths[0], _REQUESTS, label, MORE)
        requests[mode]["conversation_id"] = unguard_cells(requests[mode]["conversation_id"])
        blocks[mode] = _read_table(paths[1], _BLOCKS, label)
        _check_whole(paths, requests[mode], blocks[mode], stats[mode], label)
    return Report(label, folder, stats, requests, blocks, _read_facts(folder, stats[MODES[-1]]["parameters"]))


def read_path(content, path):
    """Return what stands at a path of nested mappings, as in `sharing_fraction.mean`; KeyError if it is not there."""

    def step(inner, name):
        if not isinstance(inner, dict):
            raise KeyError(path)
        return inner[name]

    return reduce(step, path.split("."), content)


def _read_stats(path, mode, label):
    stats = read_json(path, f"make report NAME={label} again")
    lacking = [name for name in _KEYS if not _has(stats, name)]
    if lacking:
        raise _refuse_old(path, lacking, label)
    if stats["mode"] != mode:
        raise InputError(f"{path}: is of the mode {stats['mode']!r}; make report NAME={label} again")
    return stats


def _has(stats, path):
    try:
        read_path(stats, path)
    except KeyError:
        return False
    return True


def _read_table(path, columns, label, more=()):
    """Return columns of a CSV file, and those of `more` (whole numbers) that it has."""
    try:
        with explain_os_errors(path), open(path, encoding="utf-8") as file:
            head = file.readline().rstrip("\n").split(",")
            if lacking := [name for name in columns if name not in head]:
                raise _refuse_old(path, lacking, label)
            columns = columns | {name: pa.int64() for name in more if name in head}
            convert = csv.ConvertOptions(column_types=columns, include_columns=list(columns))
            parse = csv.ParseOptions(newlines_in_values=True)
            return csv.read_csv(path, parse_options=parse, convert_options=convert).to_pandas()
    except (pa.ArrowInvalid, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise refuse_cut(path, label) from error


def _check_whole(paths, requests, blocks, stats, label):
    """Raise InputError if tables and statistics do not fit together."""
    tokens, blocks_accessed = int(requests["prompt_tokens"].sum()), int(blocks["accesses"].sum())
    rate = requests["cached_tokens"].sum() / tokens if tokens else stats["token_hit_rate"]
    if (len(requests), tokens) != (stats["requests"], stats["prompt_tokens"]["total"]) or not _same(
        rate, stats["token_hit_rate"]
    ):
        raise refuse_cut(paths[0], label)
    if (len(blocks), blocks_accessed) != (stats["blocks"]["distinct"], stats["blocks"]["accesses"]):
        raise refuse_cut(paths[1], label)


def _same(value, stated):
    return stated is None or np.isclose(value, stated, rtol=1e-9, atol=1e-12)


def refuse_cut(path, label):
    """Return the error of a file that is not whole."""
    return InputError(f"{path}: is cut, damaged or of another run than the statistics; make report NAME={label} again")


def _refuse_old(path, lacking, label):
    named = ", ".join(lacking[:6]) + (f" and {len(lacking) - 6} more" if len(lacking) > 6 else "")
    return InputError(f"{path}: has no {named}, as of an older version; make report NAME={label} again")


def _read_facts(folder, parameters):
    """Return the facts of the notebooks that ran with the report's parameters, by notebook in order."""
    found = {}
    for path in sorted((folder / "facts").glob("*.json")):
        record = read_json(path, f"make report NAME={folder.name} again")
        if not isinstance(record, dict) or not {"parameters", "facts"} <= record.keys():
            raise InputError(f"{path}: holds no facts; make report NAME={folder.name} again")
        own = {name: value for name, value in record["parameters"].items() if name not in TABLE or not TABLE[name].of}
        if all(parameters.get(name) == value for name, value in own.items()):
            found[path.stem] = record["facts"]
    return found
