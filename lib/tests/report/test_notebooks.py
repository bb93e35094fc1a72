"""The notebooks as committed, and each of them run on a small sample."""

import ast
import json
import os
import re

import nbformat
import pytest
from places import PROJECT, SAMPLE
from samples import write_notebook

from kvprefix.files.paths import InputError
from kvprefix.files.sealed import ChangedError
from kvprefix.report import sources
from kvprefix.report.notebooks import FAILED, execute_notebook, execute_notebooks, read_declared
from kvprefix.report.parameters import OWN_PARAMETERS, pick_parameters, write_parameters
from kvprefix.report.section_files import read_sections
from kvprefix.traces.parameters import Parameters
from kvprefix.traces.table import TABLE

OWN_POLICY = "51-my-policy"  # its policy is a function: the one definition in a notebook
START = 1000  # conversations of a notebook that somebody runs
PLANNED = {  # of a plan, which `read_setup` takes
    "block_size", "kv_model", "gpu", "gpus_per_replica", "replicas", "routers", "dram", "slo_ttft",
}  # fmt: skip
NOTEBOOKS = sorted((PROJECT / "notebooks").glob("*.ipynb"), key=lambda path: (path.stem != "_template", path.stem))


def read(path):
    return nbformat.read(path, as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_committed_clean(path):
    notebook = read(path)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    assert not any(cell.outputs or cell.execution_count for cell in code_cells(notebook))
    ids = [cell.id for cell in notebook.cells]
    assert len(set(ids)) == len(ids) and all(cell_id.startswith(path.stem.split("-")[0].strip("_")) for cell_id in ids)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_reads_like_an_article(path):
    notebook = read(path)
    first, last = notebook.cells[0], notebook.cells[-1]
    assert first.cell_type == "markdown" and first.source.startswith("# ") and "?" in first.source
    assert last.cell_type == "markdown" and "What this does not show" in last.source
    assert len(code_cells(notebook)) <= 16
    for cell in code_cells(notebook):
        lines = [line for line in cell.source.splitlines() if line.strip()]
        assert len(lines) <= 20 and max(map(len, lines)) <= 115
        nodes = list(ast.walk(ast.parse(cell.source)))
        assert not {type(node) for node in nodes} & {ast.ClassDef, ast.AsyncFunctionDef}
        defined = [node.name for node in nodes if isinstance(node, ast.FunctionDef)]
        assert defined == (["my_policy"] if path.stem == OWN_POLICY and cell.source.startswith("@policy(") else [])
        assert not re.search(r"^\s*[%!]|sys\.path|['\"]/(home|tmp|usr)", cell.source, re.M)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_parameters_cell_holds_literals_that_are_the_library_s_defaults(path):
    (cell,) = [cell for cell in code_cells(read(path)) if "parameters" in cell.metadata.get("tags", [])]
    given = {}
    for node in ast.parse(cell.source).body:
        assert isinstance(node, ast.Assign) and len(node.targets) == 1
        given[node.targets[0].id] = ast.literal_eval(node.value)
    assert all("#" in line for line in cell.source.splitlines())
    assert given.pop("output_dir") == "reports/scratch"
    assert Parameters(**given) == Parameters(max_conversations=START)
    assert read_declared(path) == [*given, *OWN_PARAMETERS] and '"all" for all' in cell.source


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_declares_just_the_parameters_that_it_uses_itself(path):
    cells = code_cells(read(path))
    nodes = [node for cell in cells[1:] for node in ast.walk(ast.parse(cell.source)) if isinstance(node, ast.Name)]
    assigned = {node.id for node in nodes if isinstance(node.ctx, ast.Store)}
    taken = {node.id for node in nodes} | (PLANNED if any(node.id == "read_setup" for node in nodes) else set())
    used = [name for name in TABLE if name not in assigned and name in taken]
    assert read_declared(path) == ["max_conversations", *used, *OWN_PARAMETERS]


def in_notebook(*cells):
    """Return the `globals()` of a notebook that ran these cells."""
    names = {"In": ["", *cells]}
    for cell in cells:
        exec(cell, names)
    return names


def test_what_is_not_declared_is_the_report_s_else_the_default(tmp_path):
    declare = f"# Parameters: literals\nblock_size = 32  # tokens\noutput_dir = {str(tmp_path)!r}"
    assert pick_parameters(in_notebook(declare)) == Parameters(block_size=32)
    write_parameters(tmp_path, Parameters(block_size=8, seed=4, max_conversations=9, arrivals="gamma:2"))
    kept = Parameters(block_size=32, seed=4, max_conversations=9, arrivals="gamma:2")
    assert pick_parameters(in_notebook(declare)) == kept
    injected = "# Parameters\nblock_size = '8'\nseed = 5"
    names = in_notebook(declare, injected)
    assert pick_parameters(names) == Parameters(block_size=8, seed=5, max_conversations=9, arrivals="gamma:2")
    assert names["block_size"] == 8
    assert pick_parameters(in_notebook(declare, "seed, data = 7, [1, 2]")) == kept  # names of another cell's own
    added = f"{declare}\nseed = 7"  # a line that somebody adds
    assert pick_parameters(in_notebook(declare, "seed, data = 7, [1, 2]", added)).seed == 7
    with pytest.raises(InputError, match="unknown parameter sed; known: data, .*kv_model, .*output_dir"):
        pick_parameters(in_notebook(declare, "# Parameters\nsed = 5"))
    assert pick_parameters(in_notebook(f"{declare}\nsed = 1", "# Parameters\nsed = 5")) == kept  # the notebook's own


@pytest.mark.parametrize(
    ("text", "said"),
    [("[1]", "holds no JSON object"), ("{", "holds no JSON object"), ('{"sed": 1}', "unknown parameter sed"),
     ('{"seed": -1}', "seed is -1")],
)  # fmt: skip
def test_a_damaged_file_of_parameters_is_refused(tmp_path, text, said):
    (tmp_path / "parameters.json").write_text(text)
    with pytest.raises(InputError, match=said):
        pick_parameters(in_notebook(f"output_dir = {str(tmp_path)!r}"))


@pytest.mark.parametrize("given", [None, 9])
def test_a_report_s_number_of_conversations_is_make_s_and_not_the_notebook_s(tmp_path, given):
    note = (
        "from kvprefix.report.parameters import pick_parameters\n"
        "open(f'{output_dir}/seen', 'w').write(str(pick_parameters(globals()).max_conversations))"
    )
    notebook = read(write_notebook(tmp_path / "10-a.ipynb", note))
    (cell,) = [cell for cell in code_cells(notebook) if "parameters" in cell.metadata.get("tags", [])]
    cell.source = f"# Parameters: literals\nmax_conversations = {START}  # to start with\n{cell.source}"
    nbformat.write(notebook, tmp_path / "10-a.ipynb")
    out = tmp_path / "out"
    assert execute_notebooks([tmp_path / "10-a.ipynb"], Parameters(max_conversations=given), out) == 0
    assert (out / "seen").read_text() == str(given)


@pytest.mark.parametrize(
    ("line", "said"),
    [("return block.nwo", "raised AttributeError"), ('return "high"', "returned 'high'")],
)
def test_an_error_in_one_s_own_policy_is_a_line_that_names_it(tmp_path, line, said):
    (path,) = [path for path in NOTEBOOKS if path.stem == OWN_POLICY]
    notebook = read(path)
    (cell,) = [cell for cell in code_cells(notebook) if cell.source.startswith("@policy(")]
    cell.source = cell.source.rpartition("\n")[0] + f"\n    {line}"
    at = cell.source.count("\n") + 1 if "raised" in said else 1  # where it is raised, else where the policy begins
    nbformat.write(notebook, tmp_path / path.name)
    parameters = Parameters(data=str(SAMPLE), block_size=8)
    assert execute_notebook(tmp_path / path.name, tmp_path / "done.ipynb", parameters, tmp_path) == FAILED
    reason = read_sections(tmp_path)[OWN_POLICY]["failed"]
    assert re.search(rf"InputError: policy 'mine' \(Cell In\[\d+\], line {at}\) {re.escape(said)}", reason)
    outputs = [output for cell in code_cells(read(tmp_path / "done.failed.ipynb")) for output in cell.outputs]
    (error,) = [output for output in outputs if output.output_type == "error" and output.ename == "InputError"]
    assert len(error.traceback) == 1 and not [output for output in outputs if output.output_type == "stream"]


def test_a_report_s_parameters_are_written_whole(tmp_path, capsys):
    sources = [write_notebook(tmp_path / "10-a.ipynb", "1"), write_notebook(tmp_path / "90-z.ipynb", "2")]
    assert execute_notebooks(sources, Parameters(seed=3), tmp_path / "out") == 0
    assert json.loads((tmp_path / "out/parameters.json").read_text()) == Parameters(seed=3).as_dict()


def test_every_notebook_runs_on_the_sample_and_the_report_is_whole(tmp_path):
    assert execute_notebooks(NOTEBOOKS, Parameters(data=str(SAMPLE), block_size=8), tmp_path, jobs=2) == 0
    for mode in ("single_turn", "multi_turn"):
        for name in ("stats.json", "request_metrics.csv", "block_metrics.csv", "trace.jsonl"):
            assert (tmp_path / f"{mode}_{name}").stat().st_size
    for name in ("sharing_fraction_cdf", "block_hit_distribution", "reuse_gap_cdf", "comparison"):
        assert (tmp_path / f"{name}.png").stat().st_size and (tmp_path / f"{name}.pdf").stat().st_size
    markdown = (tmp_path / "report.md").read_text()
    assert "8 conversations" in markdown and "unknown_speaker" in markdown
    assert not re.search(r"\bnan\b", markdown, re.I)
    for target in re.findall(r"\]\((figures/[^)]+)\)", markdown):
        assert (tmp_path / target).exists()


@pytest.fixture
def library(tmp_path, monkeypatch):
    """A library of two modules, a template that one of them names, and another that none does."""
    package = tmp_path / "library"
    (package / "words").mkdir(parents=True)
    for name, text in {
        "__init__.py": "", "one.py": "def f():\n    from library import two", "two.py": "say('said')", "three.py": "",
        "words/said.md.j2": "so", "words/other.md.j2": "so",
    }.items():  # fmt: skip
        (package / name).write_text(text)
    monkeypatch.setattr(sources, "PACKAGE", package)
    clear_sources()
    yield package
    clear_sources()


def clear_sources():
    for kept in (sources._read, sources._hash, sources._list_others, sources._list_imported):
        kept.cache_clear()


def test_only_what_was_made_of_other_content_is_executed_and_then_the_last_one(tmp_path, library, capsys):
    note = "open(f'{output_dir}/log', 'a').write(%r)"
    imports = {"10-a": "if 0: from library import one\n", "20-b": "", "90-z": ""}
    notebooks = [write_notebook(tmp_path / f"{name}.ipynb", imports[name] + note % name) for name in imports]
    out, parameters = tmp_path / "out", {"seed": 0}

    def run():
        clear_sources()
        (out / "log").unlink(missing_ok=True)
        assert execute_notebooks(notebooks, Parameters(**parameters), out, only_stale=True) == 0
        return (out / "log").read_text() if (out / "log").exists() else ""

    assert run() == "10-a20-b90-z" and run() == ""
    for file in (*notebooks, *library.rglob("*.*")):
        os.utime(file, (2e9, 2e9))  # another time is no other content
    assert run() == ""
    for name, executed in (
        ("one.py", "10-a90-z"), ("two.py", "10-a90-z"), ("words/said.md.j2", "10-a90-z"), ("three.py", ""),
        ("words/other.md.j2", ""),
    ):  # fmt: skip
        (library / name).write_text((library / name).read_text() + "\n# changed")
        os.utime(library / name, (1, 1))  # that it is newer is not the reason
        assert (name, run()) == (name, executed)
    write_notebook(notebooks[1], note % "20-b" + "  # changed")
    assert run() == "20-b90-z"
    (out / "notebooks/10-a.ipynb").unlink()
    assert run() == "10-a90-z"
    (out / "notebooks/20-b.ipynb").write_text("{")
    assert run() == "20-b90-z"
    parameters["seed"] = 1
    assert run() == "10-a20-b90-z" and run() == ""


def test_a_notebook_of_the_project_is_made_of_its_modules_and_their_words():
    text = {one.stem: "\n".join(cell["source"] for cell in nbformat.read(one, 4).cells if cell["cell_type"] == "code")
            for one in NOTEBOOKS}  # fmt: skip
    made_of = {name: {one.relative_to(sources.PACKAGE).as_posix() for one in sources.list_sources(code)}
               for name, code in text.items()}  # fmt: skip
    assert {"cache/rules/slru.py", "report/words/policies.md.j2", "models/models.json"} <= made_of["50-eviction"]
    assert not {"engines/sglang.py", "report/words/survival.md.j2", "report/notebooks.py"} & made_of["50-eviction"]
    assert {"report/words/answer_memory.md.j2", "report/page/report.css"} <= made_of["90-report"]


def test_after_a_failed_notebook_the_others_run_and_the_next_time_just_what_failed(tmp_path, capsys):
    note = "open(f'{output_dir}/log', 'a').write(%r)"
    sources = [write_notebook(tmp_path / f"{name}.ipynb", note % name) for name in ("10-a", "20-b", "30-c", "90-z")]
    out = tmp_path / "out"
    assert execute_notebooks(sources, Parameters(), out) == 0  # once all was well
    write_notebook(sources[1], "1 / 0")

    def run(**options):
        (out / "log").unlink(missing_ok=True)
        return execute_notebooks(sources, Parameters(), out, **options), (out / "log").read_text()

    assert run() == (FAILED, "10-a30-c90-z")
    kept = sorted(path.name for path in (out / "notebooks").iterdir())
    assert kept == ["10-a.ipynb", "20-b.failed.ipynb", "30-c.ipynb", "90-z.ipynb"]
    assert run(only_stale=True) == (FAILED, "90-z")
    write_notebook(sources[1], note % "20-b")
    assert run(only_stale=True) == (0, "20-b90-z")
    assert "20-b" not in read_sections(out)
    assert sorted(path.name for path in (out / "notebooks").iterdir()) == [f"{s.stem}.ipynb" for s in sources]


def test_data_that_changes_between_notebooks_is_no_report(tmp_path, capsys):
    data = tmp_path / "data.json"
    data.write_bytes(SAMPLE.read_bytes())
    change = f"open({str(data)!r}, 'a').write(' ')"
    sources = [write_notebook(tmp_path / "10-a.ipynb", change), write_notebook(tmp_path / "90-z.ipynb", "2")]
    with pytest.raises(ChangedError, match=f"{data}: changed while it was read"):
        execute_notebooks(sources, Parameters(data=str(data)), tmp_path / "out")
    assert [path.name for path in (tmp_path / "out/notebooks").iterdir()] == ["10-a.ipynb"]


def test_a_failed_notebook_leaves_its_copy_as_evidence(tmp_path, capsys):
    source = write_notebook(tmp_path / "10-broken.ipynb", "1 / 0")
    target = tmp_path / "out" / "10-broken.ipynb"
    assert execute_notebook(source, target, Parameters(), tmp_path) == FAILED
    assert not target.exists() and (tmp_path / "out/10-broken.failed.ipynb").exists()
    error = capsys.readouterr().err
    assert "error: 10-broken.ipynb: cell 3: ZeroDivisionError: division by zero\n" in error and "Traceback" not in error


def test_a_reason_is_one_line_and_a_dead_kernel_has_one(tmp_path, capsys):
    loud = write_notebook(tmp_path / "10-loud.ipynb", "raise ValueError('a\\n\\x1b[31m<b>' + 'c' * 999)")
    dead = write_notebook(tmp_path / "20-dead.ipynb", "import os\nos._exit(9)")
    assert execute_notebooks([loud, dead], Parameters(), tmp_path / "out") == FAILED
    sections = read_sections(tmp_path / "out")
    assert sections["10-loud"]["failed"].startswith("cell 3: ValueError: a [31m<b>ccc")
    assert len(sections["10-loud"]["failed"]) == 301
    assert sections["20-dead"] == {
        "form": 2, "title": "20-dead", "items": [], "failed": "cell 3: its kernel died, as it does if memory runs out"
    }  # fmt: skip
    assert capsys.readouterr().err.splitlines()[4:] == [
        "2 of 2 notebooks failed: 10-loud, 20-dead; the next run is of these and the last one"
    ]


BREAK = "import kvprefix.studies.sharing, kvprefix.report.plots.cache as plots\n%s = lambda *_: 1 / 0\n"


def run_broken(folder, **lines):
    """Run the notebooks, of which some begin their set-up cell with a line of their own."""
    sources = []
    for path in NOTEBOOKS[1:]:
        notebook = read(path)
        cell = code_cells(notebook)[1]
        cell.source = lines.get(f"n{path.stem[:2]}", "") + cell.source
        sources.append(folder / path.name)
        nbformat.write(notebook, sources[-1])
    return execute_notebooks(sources, Parameters(data=str(SAMPLE), block_size=8), folder / "out", jobs=2)


def test_a_failed_section_is_a_box_and_the_rest_is_a_report(tmp_path):
    hostile = "raise ValueError('![x](/etc/hostname) <script>|')\n"
    assert run_broken(tmp_path, n20=hostile, n40=BREAK % "plots.draw_reuse") == FAILED
    out = tmp_path / "out"
    markdown, page = (out / "report.md").read_text(), (out / "report.html").read_text()
    assert "> **This report is not complete.** Failed: 20-prefix-sharing, 40-cache-size. The reasons" in markdown
    reason = r"stopped at cell 3: ValueError: !\[x\](/etc/hostname) \<script>\|. It has made nothing before that."
    assert f"## Prefix sharing\n\n> **This section failed.** The notebook 20-prefix-sharing {reason}" in markdown
    kept = markdown.partition("## Cache size\n\n")[2].partition("\n## ")[0]
    assert kept.startswith("> **This section failed.** The notebook 40-cache-size stopped at cell ")
    assert ": ZeroDivisionError: division by zero." in kept
    assert "What follows was made before that." in kept and "figures/40-lru-curve.png" in kept
    assert page.count('<aside class="failed" role="note">') == 3 and page.count("<script") == 1
    assert "could be shared if nothing" not in markdown and "### Method" in markdown and "### Data" not in markdown
    conclusion = markdown.partition("### Conclusion\n\n")[2].partition("\n### ")[0]
    assert "multi-turn prompt tokens are cached" not in conclusion and "LRU reaches half" not in conclusion
    assert "better eviction wins at most" in conclusion or "Eviction decides nothing" in conclusion
    assert "25-provenance, 30-block-size, 50-eviction, 55-misses, 60-timing evict but" in markdown
    assert "| block_size " in markdown and not re.search(r"\bnan\b", markdown, re.I)


def test_a_file_name_that_no_notebook_can_hold_is_refused(tmp_path):
    source = write_notebook(tmp_path / "10-a.ipynb", "1")
    folder = tmp_path / os.fsdecode(b"out\xff")
    with pytest.raises(InputError, match=r"output_dir is .*\\udcff': a notebook holds no name that is not UTF-8"):
        execute_notebook(source, tmp_path / "done.ipynb", Parameters(), folder)


def test_papermill_s_strings_are_read_and_its_unknown_names_refused(tmp_path):
    import papermill

    def run(name, **given):
        given |= {"data": str(SAMPLE), "output_dir": str(tmp_path / "out")}
        papermill.execute_notebook(
            PROJECT / f"notebooks/{name}.ipynb", tmp_path / "done.ipynb", given, kernel_name="python3",
            progress_bar=False,
        )  # fmt: skip

    run("10-workload", block_size="8", arrival_rate="5", drop_duplicates="true", max_conversations="3", seed="4")
    caption = (tmp_path / "out/figures/10-arrivals.txt").read_text()
    assert "5 conversations/s" in caption and "seed 4" in caption
    with pytest.raises(papermill.PapermillExecutionError, match="InputError: unknown parameter blok_size; known: data"):
        run("10-workload", blok_size=8)


def test_a_notebook_without_parameters_is_refused(tmp_path):
    path = tmp_path / "10-x.ipynb"
    nbformat.write(nbformat.v4.new_notebook(), path)
    with pytest.raises(InputError, match="0 cells tagged `parameters`"):
        execute_notebook(path, tmp_path / "out.ipynb", Parameters(), tmp_path)
