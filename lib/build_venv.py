"""Build `.venv` from environment.yml with uv, or with venv and pip where there is no uv: ``make env``.

Nothing is fetched but the pins of environment.yml: they are installed without their dependencies, which are
pins too, and checked afterwards. It runs before anything is installed, so it uses the standard library alone.
"""

import contextlib
import fcntl
import importlib.util
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from environment import PROJECT, YML, find_uv, read_environment

VENV = PROJECT / ".venv"
PIP = [str(VENV / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]


def main():
    """Build, with a plain word where it is stopped."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    try:
        build()
    except KeyboardInterrupt:
        sys.exit("stopped")


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
        if not (uv and _install("uv", _uv_steps(uv), pins, lock_file)):
            _check_venv_module()
            if not _install("pip", _pip_steps(), pins, lock_file):
                sys.exit("make env: .venv could not be built; run it again once the cause above is mended")
        ready.write_text(f"{PROJECT}\n")


def _uv_steps(uv):
    """Return the commands of a build with uv; REQUIREMENTS stands for the file that holds the pins."""
    install = [uv, "pip", "install", "--compile-bytecode", "--python", str(VENV), "--no-deps"]
    return [
        [uv, "venv", "--no-project", "--python", sys.executable, str(VENV)],
        [*install, "-r", "REQUIREMENTS"],
        [*install, "--no-build-isolation", "-e", str(PROJECT / "lib")],
    ]


def _pip_steps():
    """Return the commands of a build with venv and pip."""
    install = [*PIP, "install", "--no-deps"]
    # On all cores, where pip would use one; without it each notebook compiles its imports anew where Python may not
    # write beside them.
    compile_all = f"import compileall; compileall.compile_dir({str(VENV / 'lib')!r}, quiet=2, workers=0)"
    return [
        [sys.executable, "-m", "venv", str(VENV)],
        [*install, "--no-compile", "-r", "REQUIREMENTS"],
        [*install, "--no-build-isolation", "-e", str(PROJECT / "lib")],
        [str(VENV / "bin" / "python"), "-c", compile_all],
    ]


def _install(tool, steps, pins, lock_file):
    """Run the commands of a build from no .venv at all; return whether they went well."""
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
                _show_failure(command, log)
                return False
        if not _run([*PIP, "check"], log, lock_file):
            _show_failure([*PIP, "check"], log)
            sys.exit("make env: the pins do not fit together; `make lock` resolves environment.yml again")
        print("Compiling the inner loops", flush=True)
        command = [str(VENV / "bin" / "python"), str(PROJECT / "lib" / "compile_loops.py")]
        if not _run(command, log, lock_file):
            _show_failure(command, log)
            print("make env: they will be compiled when they are first used", file=sys.stderr)
    print(f"Built .venv in {time.monotonic() - start:.0f} s", flush=True)
    return True


def _show_failure(command, log):
    """Print a failed command and the end of what it said."""
    lines = [line[:300] for line in log.read_text(errors="replace").splitlines()[-12:]]
    print(" ".join(command), "failed:", *lines, sep="\n  ", file=sys.stderr, flush=True)


def _run(command, log, lock_file):
    """Run a command with its output in `log`, tell the time every 10 s, and return whether it went well."""
    start = time.monotonic()
    with open(log, "w") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=PROJECT, pass_fds=[lock_file]
        )
    try:
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return process.wait(timeout=10) == 0
            state = _progress(log.read_text(errors="replace"))
            print(f"  {time.monotonic() - start:.0f} s{state}", flush=True)
    finally:
        process.terminate()
        process.wait()


def _progress(log):
    """Say how far pip is, from what it has printed; uv prints nothing on its way."""
    if "Installing collected packages" in log:
        return ", installing"
    fetched = len(re.findall("^(?:Collecting|Processing) ", log, re.MULTILINE))
    return f", {fetched} packages fetched" if fetched else ""


@contextlib.contextmanager
def _one_build_at_a_time():
    """Hold a lock on environment.yml: yield its handle, for commands to inherit, and if we waited for it.

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


if __name__ == "__main__":
    main()
