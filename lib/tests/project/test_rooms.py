"""The library's shape: rooms whose imports go one way, and tests laid out like the rooms."""

import ast
import subprocess
import sys

from places import LIB

PACKAGE = LIB / "kvprefix"
ROOMS = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").is_file()}
ACROSS = {"helpers", "fixtures", "project"}  # folders of tests that are no room's


def test_imports_go_from_a_room_to_rooms_below_it():
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"]
    done = subprocess.run([*command, "--no-cache"], cwd=LIB, capture_output=True, text=True)
    assert done.returncode == 0 and "1 kept, 0 broken" in done.stdout, done.stdout + done.stderr


def test_the_package_is_seen_at_a_glance():
    entries = [path.name for path in PACKAGE.iterdir() if path.name != "__pycache__"]
    assert len(entries) <= 21 and set(entries) > ROOMS


def test_each_room_says_what_lives_there_and_what_may_not():
    for room in ROOMS:
        first, blank, *more = (PACKAGE / room / "__init__.py").read_text().splitlines()[:3]
        assert first.startswith('"""') and first.endswith(".") and not blank and more, room


def test_tests_are_laid_out_like_the_rooms():
    folders = {path.name for path in (LIB / "tests").iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders - ACROSS <= ROOMS and not list((LIB / "tests").glob("test_*.py"))


def test_a_module_is_read_in_one_sitting_and_a_function_at_a_glance():
    long = []
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        if (lines := text.count("\n")) > 300:
            long.append(f"{path.relative_to(PACKAGE)}: {lines} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                start = node.body[0].end_lineno if ast.get_docstring(node) else node.lineno
                if (lines := node.end_lineno - start) > 60:
                    long.append(f"{path.relative_to(PACKAGE)}, {node.name}: {lines} lines")
    assert not long
