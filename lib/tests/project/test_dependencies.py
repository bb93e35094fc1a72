"""Dependencies: declared once, locked exactly, and installed from the lock by conda and by make alike."""

import re
import subprocess
import sys
import tomllib
from importlib.metadata import distribution, packages_distributions

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from places import LIB, PROJECT

from kvprefix.files import extras
from kvprefix.files.extras import EXTRAS, need
from kvprefix.files.paths import InputError

PYPROJECT = tomllib.loads((LIB / "pyproject.toml").read_text())
LOCK_TEXT = (LIB / "requirements.lock").read_text()
LOCK = [Requirement(line) for line in LOCK_TEXT.splitlines() if line and not line.lstrip().startswith("#")]
PINS = {canonicalize_name(pin.name): str(pin.specifier) for pin in LOCK}
OPTIONAL = PYPROJECT["project"]["optional-dependencies"]
CORE = PYPROJECT["project"]["dependencies"]


def test_the_lock_is_exact_and_names_no_place():
    assert "://" not in LOCK_TEXT and " @ " not in LOCK_TEXT and not re.search(r"(^|\s)[~/]\w", LOCK_TEXT)
    assert len(LOCK) == len(PINS) > 100
    assert all(re.fullmatch(r"==[0-9][A-Za-z0-9.!+]*", pin) for pin in PINS.values())


@pytest.mark.parametrize("text", [*CORE, *(text for extra in OPTIONAL.values() for text in extra)])
def test_a_direct_dependency_has_a_bound_that_the_lock_fits(text):
    asked = Requirement(text)
    assert {bound.operator for bound in asked.specifier} <= {">=", "=="} and asked.specifier
    assert asked.specifier.contains(PINS[canonicalize_name(asked.name)].removeprefix("=="))


def test_what_builds_the_library_is_the_one_that_make_env_installs():
    assert PYPROJECT["build-system"]["requires"] == ["flit_core" + PINS["flit-core"]]


def test_conda_installs_the_lock():
    environment = yaml.safe_load((PROJECT / "environment.yml").read_text())
    *conda, pip = environment["dependencies"]
    assert pip == {"pip": ["-r lib/requirements.lock", "-e ./lib"]}  # read from the file's folder
    python, its_pip = conda
    assert its_pip == "pip=" + PINS["pip"].removeprefix("==")
    assert PYPROJECT["project"]["requires-python"] == ">=" + python.removeprefix("python=")


def test_the_modules_of_an_extra_come_with_it():
    packages = packages_distributions()
    for extra, modules in EXTRAS.items():
        asked = {canonicalize_name(Requirement(text).name) for text in OPTIONAL[extra]}
        needed = asked | {
            canonicalize_name(Requirement(text).name) for name in asked for text in distribution(name).requires or []
        }
        assert not [name for name in modules if not {canonicalize_name(p) for p in packages[name]} & needed]


def test_a_missing_extra_is_named(monkeypatch):
    need("report")
    monkeypatch.setitem(extras.EXTRAS, "report", ("numpy", "no_such_module"))
    with pytest.raises(InputError, match=r"needs no_such_module; install it: pip install 'kvprefix\[report\]'$"):
        need("report")


def test_without_the_extras_every_other_module_imports():
    hidden = sorted({*EXTRAS["report"], *EXTRAS["cluster"], "jupyter_client", "jupyter_core", "psutil", "pytest"})
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({hidden}))\n"
        "import kvprefix.__main__ as m; m.make_parser()\n"
        "import kvprefix.studies.sweep, kvprefix.studies.sharing, kvprefix.formats.convert, kvprefix.engines.overlap\n"
        "import kvprefix.live.compare, kvprefix.report.facts.workload, kvprefix.traces.workload\n"
        "import kvprefix.tasks.runner\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
