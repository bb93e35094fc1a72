"""The files in which notebooks hand their part to the report: what they show, and their facts.

`sections/NAME.json` holds a notebook's title, its items and, if the notebook failed, the reason. `facts/NAME.json`
holds its facts, by the name of their template, and the parameters that they belong to. `page` and `facts.conclusion`
make the report of them.
"""

import datetime
import glob
import hashlib
import json
from pathlib import PurePath

from kvprefix.files.escape import one_line
from kvprefix.files.paths import InputError, explain_os_errors, resolve_output, tell, write_bytes

FORM = 2  # of a section's file; raise when it changes
SHARING = "20-prefix-sharing"  # the notebook that writes the data files
_SHOWN = {"figure": ("figures/{}.*", "paper/{}-column.*", "paper/{}-page.*"), "table": ("tables/{}.*",)}
LEFT_OUT = "left-out.txt"  # the names of a report's fixed files that it does not have, for `make`


def write_section(folder, name, title, items):
    """Write what a notebook shows: its title (plain text) and its items (dicts with their `kind`, see `sections`)."""
    _write(folder / "sections" / f"{name}.json", {"form": FORM, "title": title, "items": list(items)})


def write_facts(folder, name, facts, parameters):
    """Write a notebook's facts, plain JSON values by name (in ASCII, since data may hold invalid Unicode)."""
    _write(folder / "facts" / f"{name}.json", {"parameters": parameters.as_dict(), "facts": facts}, ensure_ascii=True)


def begin_section(folder, name):
    """Remove what an earlier run of a notebook handed over, and the files of the figures and tables it recorded."""
    _remove(_list_shown(folder, name))
    _remove(_list_records(folder, name))


def _list_records(folder, name):
    return [folder / part / f"{name}.json" for part in ("sections", "facts")]


def _list_shown(folder, name):
    """Return the files of what a notebook recorded; a record that was changed by hand may name none."""
    try:
        items = json.loads((folder / "sections" / f"{name}.json").read_text(encoding="utf-8"))["items"]
        shown = [(one["kind"], PurePath(one["name"]).name) for one in items if one["kind"] in _SHOWN]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    own = f"{name.split('-')[0]}-"
    patterns = [one.format(glob.escape(stem)) for kind, stem in shown if stem.startswith(own) for one in _SHOWN[kind]]
    return [path for pattern in patterns for path in folder.glob(pattern)]


def _remove(paths):
    for path in paths:
        with explain_os_errors(path):
            path.unlink(missing_ok=True)


def mark_failed(folder, name, title, reason):
    """Record that a notebook failed and why (one line); what it showed before stays, its facts are removed.

    `title` is used if the notebook failed before it recorded one.
    """
    path = folder / "sections" / f"{name}.json"
    record = read_json(path) if path.exists() else {"form": FORM, "title": title, "items": []}
    _remove(_list_records(folder, name))
    _write(path, {**record, "failed": one_line(reason)})


def read_sections(folder):
    """Return the sections of a report folder, by name in order: mappings with `title`, `items` and perhaps `failed`.

    A section of another form, as another version of the library has left it, is skipped with a note.
    """
    found = {}
    for path in sorted((folder / "sections").glob("*.json")):
        record = read_json(path)
        if record.get("form") == FORM:
            found[path.stem] = record
        else:
            tell(f"{path}: is of another version and left out; run its notebook again, or remove it if there is none")
    return found


def read_stats(folder, parameters):
    """Read both modes' statistics of a report folder: a dict of mode to the content of `*_stats.json`.

    If notebook 20 failed, or was left out, the result holds the `parameters` alone, or what notebook 15 wrote of a
    trace of block ids with these parameters.

    Raises
    ------
    InputError
        If notebook 20 has not written them yet.
    """
    folder = resolve_output(folder)
    section = read_sections(folder).get(SHARING, {})
    if "failed" in section or any(item["kind"] == "absent" for item in section.get("items", [])[:1]):
        wanted, path = parameters.describe_requests(), folder / "multi_turn_stats.json"
        stats = read_json(path) if "failed" not in section and path.exists() else {"parameters": {}}
        is_own = wanted.items() <= stats["parameters"].items()
        return {"multi_turn": stats if is_own else {"parameters": {**wanted, "versions": {}}}}
    stats = {}
    for mode in ("single_turn", "multi_turn"):
        path = folder / f"{mode}_stats.json"
        if not path.exists():
            raise InputError(f"{path}: is not there yet; run notebook {SHARING} with the same output_dir first")
        stats[mode] = read_json(path)
    return stats


def read_facts(folder, parameters):
    """Return the facts that a report folder's notebooks handed over with these parameters, by notebook.

    A failed notebook has none. Facts of other parameters, as a run in JupyterLab leaves them, are skipped with a note.
    """
    found = {}
    for path in sorted((folder / "facts").glob("*.json")):
        record = read_json(path)
        if record["parameters"] == parameters.as_dict():
            found[path.stem] = record["facts"]
        else:
            tell(f"{path}: is of other parameters and left out; run that notebook again with these")
    return found


def date_results(folder):
    """Return the day on which the present sections and facts were first made, as ``2026-11-29``.

    It is kept in `made.json` beside a checksum of them: making equal results again, as a clone does, keeps the day.
    """
    files = sorted(path for part in ("sections", "facts") for path in (folder / part).glob("*.json"))
    checksum = hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()
    path = folder / "made.json"
    known = read_json(path) if path.exists() else {}
    if known.get("results") != checksum:
        known = {"date": datetime.date.today().isoformat(), "results": checksum}
        _write(path, known)
    return known["date"]


def read_run_facts(folder):
    """Return the facts of a report folder's last run, by notebook: those with the parameters of its last notebook."""
    records = {path.stem: read_json(path) for path in sorted((folder / "facts").glob("*.json"))}
    last = next(reversed(records.values()), {}).get("parameters")
    return {name: record["facts"] for name, record in records.items() if record["parameters"] == last}


def _write(path, content, *, ensure_ascii=False):
    write_bytes(path, json.dumps(content, ensure_ascii=ensure_ascii, indent=1, allow_nan=False) + "\n")


def read_json(path, then="remove it and run its notebook again"):
    """Return the content of a JSON file of a report; `then` says what to do if it is none."""
    try:
        with explain_os_errors(path):
            return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: is no valid JSON; {then}") from error
