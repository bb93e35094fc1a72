"""Read environment.yml: print its pip requirements, or resolve them again.

    python lib/environment.py requirements   print the pins, one a line
    python lib/environment.py lock           resolve what the direct pins need, with uv    (make lock)

It runs before anything is installed, so it uses the standard library alone, and it reads only the form that
environment.yml has: it is no YAML reader, and refuses what it does not understand.
"""

import contextlib
import os
import re
import shutil
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
YML = PROJECT / "environment.yml"
RESOLVED = "# What those need, resolved"
LIBRARY = "-e ./lib"
PIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*==[0-9][A-Za-z0-9.!+]*( ; [^#]+)?")

# `direct` and `resolved` are pip requirements; `first` and `last` bound the resolved ones among `lines`.
Environment = namedtuple("Environment", "lines python pip direct resolved first last")


def main(arguments):
    """Run the command that is named."""
    commands = {"requirements": print_requirements, "lock": lock}
    if len(arguments) != 1 or arguments[0] not in commands:
        sys.exit(f"usage: python lib/environment.py {' | '.join(commands)}")
    if sys.version_info < (3, 11):  # noqa: UP036
        sys.exit(f"Python 3.11 or newer is needed; {sys.executable} is {sys.version.split()[0]}")
    commands[arguments[0]]()


def print_requirements():
    """Print the pip requirements, without the library itself."""
    environment = read_environment()
    print("\n".join(environment.direct + environment.resolved))


def read_environment(text=None):
    """Read environment.yml (or `text`, of the same form), or exit with the line that is not understood."""
    lines = (YML.read_text(encoding="utf-8") if text is None else text).splitlines()
    conda, start = _read_conda(lines)
    direct, resolved, first, last = [], [], None, None
    for number, line in enumerate(lines[start:], start):
        item = line.strip().removeprefix("- ")
        if last is not None and item:
            _refuse(number, line, f"nothing after `- {LIBRARY}`")
        if item.startswith(RESOLVED):
            first = number + 1
        elif item == LIBRARY:
            last = number
        elif PIN.fullmatch(item) and line.startswith("      - "):
            (direct if first is None else resolved).append(item)
        elif item and not item.startswith("#"):
            _refuse(number, line, "`      - name==version` or `      - name==version ; marker`")
    if first is None or last is None:
        sys.exit(f"environment.yml: the pip part must hold a line `{RESOLVED}` and end with `- {LIBRARY}`")
    while lines[last - 1].strip().startswith("#") and last > first:  # the library's own comment
        last -= 1
    return Environment(lines, conda["python"], conda["pip"], direct, resolved, first, last)


def _read_conda(lines):
    """Return the conda packages' versions, and the index of the first line of the pip part."""
    versions = {}
    for number, line in enumerate(lines):
        if line.rstrip() == "  - pip:":
            missing = {"python", "pip"} - set(versions)
            if missing:
                sys.exit(f"environment.yml: `- {missing.pop()}=version` is missing before `- pip:`")
            return versions, number + 1
        pin = re.fullmatch(r"  - (python|pip)=([0-9][0-9.]*)", line.rstrip())
        if pin:
            versions[pin[1]] = pin[2]
        elif line.strip() and not re.match(r"#|name: |channels:$|dependencies:$|  - [a-z-]+$", line):
            _refuse(number, line, "`  - python=version`, `  - pip=version` or `  - pip:`")
    sys.exit("environment.yml: no line `  - pip:`")


def _refuse(number, line, expected):
    sys.exit(f"environment.yml, line {number + 1}: `{line.strip()}` is not understood; expected {expected}")


def find_uv():
    """Return the uv on PATH, or None; one that does not run (a version manager's empty shim) is none."""
    uv = shutil.which(os.environ.get("UV", "uv"))
    with contextlib.suppress(OSError):
        if uv and subprocess.run([uv, "--version"], capture_output=True).returncode == 0:
            return uv
    return None


def lock():
    """Resolve what the direct pins need, for all Pythons and systems, and rewrite environment.yml whole."""
    environment = read_environment()
    uv = find_uv()
    if uv is None:
        sys.exit("make lock needs uv, which is not on PATH; `pip install uv` brings it")
    command = [uv, "pip", "compile", "-", "--quiet", "--universal", "--fork-strategy", "fewest"]
    command += ["--python-version", environment.python, "--no-header", "--no-annotate", "--no-emit-index-url"]
    pins = "\n".join(environment.direct)
    result = subprocess.run(command, input=pins, capture_output=True, text=True, cwd=PROJECT)
    if result.returncode:
        sys.exit(f"{result.stderr.strip()}\nmake lock: environment.yml is left as it was")
    direct = {_name(pin) for pin in environment.direct}
    resolved = sorted((pin for pin in result.stdout.splitlines() if _name(pin) not in direct), key=_name)
    lines = environment.lines
    lines = [*lines[: environment.first], *(f"      - {pin}" for pin in resolved), *lines[environment.last :]]
    text = "\n".join(lines) + "\n"
    read_environment(text)
    for sign, some, others in (("-", environment.resolved, resolved), ("+", resolved, environment.resolved)):
        print(*(f"{sign} {pin}\n" for pin in some if pin not in others), sep="", end="")
    print(f"environment.yml: {len(resolved)} resolved pins")
    if resolved != environment.resolved:  # whole or not at all
        YML.with_name(".environment.yml.new").write_text(text, encoding="utf-8")
        os.replace(YML.with_name(".environment.yml.new"), YML)


def _name(requirement):
    """Return a requirement's name as pip compares names.

    >>> _name("Flit_core==4.2.0 ; python_version < '4'")
    'flit-core'
    """
    return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]*", requirement)[0]).lower()


if __name__ == "__main__":
    main(sys.argv[1:])
