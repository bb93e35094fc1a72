"""Compile a report's paper kit: `all.pdf` by pdfLaTeX and `all.docx` by pandoc, each where the program is there.

Both run in a scratch folder, without a shell, at a fixed time: equal input gives equal bytes.
"""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from kvprefix.files.paths import InputError, write_bytes

PACKAGES = {  # program: (the file that it makes, the package to install on Debian and Ubuntu)
    "pdflatex": ("all.pdf", "texlive-latex-recommended"),
    "pandoc": ("all.docx", "pandoc"),
}
EPOCH = "315532800"  # 1980, the first year that a docx can state
MOST_S = 300


def build_paper(folder):
    """Write `paper/all.pdf` and `paper/all.docx` of a report folder, each whole or not at all.

    Returns
    -------
    made : list of pathlib.Path
    notes : list of str
        Programs that are missing and what to install, lines that are too wide.

    Raises
    ------
    InputError
        If the folder holds no paper kit, or a program fails on it.
    """
    folder = Path(folder)
    paper = folder / "paper"
    for name in ("all.tex", "all.md"):
        if not (paper / name).is_file():
            raise InputError(f"{paper / name}: is not there; make the report first: make report NAME={folder.name}")
    made, notes = [], []
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch) / "paper"
        shutil.copytree(paper, work, ignore=shutil.ignore_patterns("all.pdf", "all.docx", ".*"))
        for program, (name, package) in PACKAGES.items():
            if shutil.which(program) is None:
                notes.append(f"{name} was not made: {program} is missing; install it: apt-get install {package}")
                continue
            notes += _PROGRAMS[program](work)
            write_bytes(paper / name, (work / name).read_bytes())
            made.append(paper / name)
    return made, notes


def _run_latex(work):
    """Run pdfLaTeX twice, so that references are known; return notes on lines that are too wide."""
    command = ["pdflatex", "-no-shell-escape", "-interaction=nonstopmode", "-halt-on-error", "-file-line-error", "all"]
    for _ in range(2):
        said = _run(command, work)
    log = (work / "all.log").read_text(encoding="utf-8", errors="replace")
    if not (work / "all.pdf").is_file():
        raise InputError(f"{work.name}/all.tex: pdflatex made no page: {said[-200:]}")
    return [f"all.pdf: {line}" for line in log.split("\n") if line.startswith("Overfull")]


def _run_pandoc(work):
    style = Path(__file__).with_name("word.lua")
    reader = "commonmark+pipe_tables+strikeout"
    _run(["pandoc", f"--from={reader}", f"--lua-filter={style}", "all.md", "--output=all.docx"], work)
    return []


def _run(command, work):
    """Run a program; raise InputError with what it complains of if it fails."""
    time = {"SOURCE_DATE_EPOCH": os.environ.get("SOURCE_DATE_EPOCH", EPOCH), "FORCE_SOURCE_DATE": "1"}
    fenced = {"openin_any": "p", "openout_any": "p", "max_print_line": "1000"}  # TeX reads and writes below its folder
    try:
        done = subprocess.run(
            command, cwd=work, env=os.environ | time | fenced, stdin=subprocess.DEVNULL, capture_output=True,
            timeout=MOST_S,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise InputError(f"{command[0]} took more than {MOST_S} s on paper/{command[-1]}") from error
    said = (done.stdout + done.stderr).decode("utf-8", "replace")
    if done.returncode:
        lines = said.split("\n")
        wrong = [line for line in lines if line.startswith("!") or ".tex:" in line] or lines[-3:]
        raise InputError(f"{command[0]} failed on the paper kit: {' '.join(wrong)[:500]}")
    return said


_PROGRAMS = {"pdflatex": _run_latex, "pandoc": _run_pandoc}
