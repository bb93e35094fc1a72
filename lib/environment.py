"""Read environment.yml: print its pip requirements, build `.venv` from them, or resolve them again.

    python lib/environment.py requirements   print the pins, one a line
    python lib/environment.py build          build .venv with uv, else with venv and pip   (make env)
    python lib/environment.py lock           resolve what the direct pins need, with uv    (make lock)

It runs before anything is installed, so it uses the standard library alone, and it reads only the form that
environment.yml has: it is no YAML reader, and refuses what it does not understand.
"""

import contextlib
import fcntl
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import namedtuple
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
YML = PROJECT / "environment.yml"
VENV = PROJECT / ".venv"
RESOLVED = "# What those need, resolved"
LIBRARY = "-e ./lib"
PIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*==[0-9][A-Za-z0-9.!+]*( ; [^#]+)?")

# `direct` and `resolved` are pip requirements; `first` and `last` bound the resolved ones among `lines`.
Environment = namedtuple("Environment", "lines python pip direct resolved first last")


def main(arguments):
    """Run one command and return the exit code."""
    commands = {"requirements": print_requirements, "build": build, "lock": lock}
    if len(arguments) != 1 or arguments[0] not in commands:
        sys.exit(f"usage: python lib/environment.py {' | '.join(commands)}")
    if sys.version_info < (3, 11):  # noqa: UP036
        sys.exit(f"Python 3.11 or newer is needed; {sys.executable} is {sys.version.split()[0]}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    try:
        commands[arguments[0]]()
    except KeyboardInterrupt:
        sys.exit("stopped")


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


def build():
    """Build .venv from scratch; `.venv/.ready` is written last, so that a killed build is done again."""
    environment = read_environment()
    _check_build_backend(environment)
    ready = VENV / ".ready"
    with _one_build_at_a_time() as (lock_file, waited):
        if waited and ready.exists():
            return
        pins = [f"pip=={environment.pip}", *environment.direct, *environment.resolved]
        uv = find_uv()
        if not (uv and _install(_uv_steps(uv), pins, "uv", lock_file)):
            _check_venv_module()
            if not _install(_pip_steps(), pins, "pip", lock_file):
                sys.exit("make env: .venv could not be built; run it again once the cause above is mended")
        ready.write_text(f"{PROJECT}\n")


def _uv_steps(uv):
    """Return the commands of a build with uv; REQUIREMENTS stands for the file that holds the pins."""
    install = [uv, "pip", "install", "--python", str(VENV), "--no-deps"]
    return [
        [uv, "venv", "--no-project", "--python", sys.executable, str(VENV)],
        [*install, "-r", "REQUIREMENTS"],
        [*install, "--no-build-isolation", "-e", str(PROJECT / "lib")],
        [uv, "pip", "check", "--python", str(VENV)],
    ]


def _pip_steps():
    """Return the commands of a build with venv and pip."""
    pip = [str(VENV / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
    return [
        [sys.executable, "-m", "venv", str(VENV)],
        [*pip, "install", "--no-deps", "-r", "REQUIREMENTS"],
        [*pip, "install", "--no-deps", "--no-build-isolation", "-e", str(PROJECT / "lib")],
        [*pip, "check"],
    ]


def _install(steps, pins, tool, lock_file):
    """Run the commands of a build from an empty .venv; return whether all went well."""
    version = ".".join(map(str, sys.version_info[:3]))
    print(f"Building .venv with {tool} (Python {version}, {len(pins)} pinned packages)", flush=True)
    if VENV.is_symlink():
        VENV.unlink()
    shutil.rmtree(VENV, ignore_errors=True)
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        requirements, log = Path(folder, "requirements.txt"), Path(folder, "log")
        requirements.write_text("\n".join(pins) + "\n")
        for step in steps:
            command = [str(requirements) if word == "REQUIREMENTS" else word for word in step]
            if not _run(command, log, lock_file):
                lines = log.read_text(errors="replace").splitlines()[-12:]
                print(f"{' '.join(command)}\nfailed:", *lines, sep="\n  ", file=sys.stderr, flush=True)
                return False
    print(f"Built .venv in {time.monotonic() - start:.0f} s", flush=True)
    return True


def _run(command, log, lock_file):
    """Run a command with its output in `log`, say how far it is every 10 s, and return whether it went well."""
    start = time.monotonic()
    with open(log, "w") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=PROJECT, pass_fds=[lock_file]
        )
    try:
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return process.wait(timeout=10) == 0
            fetched = len(re.findall("^Collecting ", log.read_text(errors="replace"), re.MULTILINE))
            print(f"  {time.monotonic() - start:.0f} s", f"{fetched} packages" * bool(fetched), flush=True)
    finally:
        process.terminate()
        process.wait()


@contextlib.contextmanager
def _one_build_at_a_time():
    """Hold a lock on environment.yml: yield its handle, for commands to inherit, and whether we waited for it.

    Whoever kills this script may leave pip or uv running: the next build then waits until they are gone.
    """
    waited = False
    with open(YML) as file:
        with contextlib.suppress(OSError):  # a file system without locks
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                waited = True
                print("Waiting for another build of .venv to end", flush=True)
                fcntl.flock(file, fcntl.LOCK_EX)
        yield file.fileno(), waited


def find_uv():
    """Return the uv on PATH, or None; one that does not run (a version manager's empty shim) is none."""
    uv = shutil.which(os.environ.get("UV", "uv"))
    with contextlib.suppress(OSError):
        if uv and subprocess.run([uv, "--version"], capture_output=True).returncode == 0:
            return uv
    return None


def _check_venv_module():
    missing = [name for name in ("venv", "ensurepip") if importlib.util.find_spec(name) is None]
    if missing:
        sys.exit(
            f"make env: {sys.executable} has no module {' and '.join(missing)}. On Debian and Ubuntu install "
            "python3-venv; or put uv on PATH; or name another Python: make env PYTHON=python3.12"
        )


def _check_build_backend(environment):
    """The library is installed without fetching anything, so what builds it must be among the pins."""
    pyproject = (PROJECT / "lib" / "pyproject.toml").read_text(encoding="utf-8")
    asked = re.search(r'^requires = \["([^"]+)"\]$', pyproject, re.MULTILINE)
    if asked is None or asked[1] not in environment.direct:
        asked = asked[1] if asked else "nothing that is understood"
        sys.exit(f"lib/pyproject.toml builds with {asked}: no pin of environment.yml; make them equal")


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
    _report_changes(environment.resolved, resolved)
    if resolved != environment.resolved:
        _replace(YML, text)


def _name(requirement):
    """Return a requirement's name as pip compares names.

    >>> _name("Flit_core==4.2.0 ; python_version < '4'")
    'flit-core'
    """
    return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]*", requirement)[0]).lower()


def _report_changes(old, new):
    for sign, pins in (("-", set(old) - set(new)), ("+", set(new) - set(old))):
        for pin in sorted(pins):
            print(sign, pin)
    print(f"environment.yml: {len(new)} resolved pins" + (", unchanged" if old == new else ""))


def _replace(path, text):
    """Write a file whole or not at all."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with open(handle, "w", encoding="utf-8") as file:
            file.write(text)
        shutil.copymode(path, name)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
