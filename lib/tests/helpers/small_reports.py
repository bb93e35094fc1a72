"""Small report folders for tests of comparisons: as `kvprefix run` writes them, with studies if asked for."""

import json
import random
from pathlib import Path

import pandas as pd
from samples import record, write_records
from strange_data import say

from kvprefix.report.facts.answer import CAUSES, ORIGINS
from kvprefix.report.facts.explained import facts_causes, facts_origins
from kvprefix.report.section_files import SHARING, write_facts
from kvprefix.studies.cache import study_lru, study_policies
from kvprefix.studies.engines import study_engines
from kvprefix.studies.explain import explain_misses, explain_provenance
from kvprefix.studies.explain_draws import draw_explained, study_causes, study_origins
from kvprefix.studies.hinted import study_hinted
from kvprefix.studies.sharing import analyse, write_results
from kvprefix.traces.parameters import Parameters
from kvprefix.traces.workload import load_workload


def chats(n=30, first=0, opening="Dear helper, please read what I write with care and answer it in a few plain words."):
    """Return records of so many conversations with ids; some share an opening, some are equal but for the id."""
    found = []
    for k in range(first, first + n):
        draw = random.Random(k)
        texts = [say(f"{draw.randrange(n)}-{j}", draw.randint(4, 40)) for j in range(2 * draw.randint(1, 5))]
        if k % 3:
            texts[0] = f"{opening} {texts[0]}"
        found.append(record(*texts, id=f"c{k}"))
    return found


def make_report(folder, tokenizer, records=None, *, studies=False, **given):
    """Write a report's folder of the records (or of a file `data`); return it."""
    folder = Path(folder)
    data = given.pop("data", None) or str(write_records(folder.parent / f"{folder.name}.json", records or chats()))
    parameters = Parameters(data=data, tokenizer=str(tokenizer), **given)
    workload = load_workload(parameters, progress=False)
    parameters = workload.parameters
    results = analyse(workload)
    folder.mkdir(exist_ok=True)
    write_results(results, workload, folder)
    facts = {"sharing": {"requests": len(results["multi_turn"].trace), "named": [{"mode": "a", "once": 1.5}]}}
    write_facts(folder, SHARING, facts, parameters)
    if studies:
        _add_studies(folder, workload, parameters)
    return folder


def _add_studies(folder, workload, parameters):
    capacities = [max(1, 2000 * k // parameters.block_size) for k in (1, 2, 4)]
    lru = study_lru(workload, points=12)  # the figure also shows an engine's curve, which is above
    tables = {
        "40-cache-size/lru-curve": pd.concat([lru.assign(what="lru"), lru.assign(what="engine", token=0.99)]),
        "50-eviction/policies": study_policies(workload, capacities, ["lru", "opt"]),
        "50-eviction/hinted": study_hinted(workload, capacities),
        "70-engine-check/engines": study_engines(workload, [max(64, 4096 // parameters.block_size)]),
    }
    (folder / "figures").mkdir(exist_ok=True)
    for place, table in tables.items():
        notebook, slug = place.split("/")
        table.to_csv(folder / "figures" / f"{notebook[:2]}-{slug}.csv", index=False)
        write_facts(folder, notebook, {"study": {"rows": len(table)}}, parameters)
    data = draw_explained(workload)
    origins = facts_origins(study_origins(workload, [50, 0]), explain_provenance(data), "conversation")
    write_facts(folder, ORIGINS, {"origins": origins}, parameters)
    causes = facts_causes(study_causes(workload, [50, 0]), None, explain_misses(data, [None])[0], 16, "conversation")
    write_facts(folder, CAUSES, {"causes": causes}, parameters)


def change_json(path, change):
    """Rewrite a JSON file with what `change` makes of its content."""
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
