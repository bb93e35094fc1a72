"""Build `.venv` from requirements.lock with uv, or with venv and pip if there is no uv: ``make env``.

The packages are installed without their dependencies, which are in the lock too, and checked afterwards. This runs
before anything is installed, so it uses the standard library alone.
"""

import contextlib
import fcntl
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

LIB = Path(__file__).resolve().parent
PROJECT = LIB.parent
LOCK = LIB / "requirements.lock"
VENV = PROJECT / ".venv"
PYTHON = str(VENV / "bin" / "python")
PIP = [PYTHON, "-m", "pip", "--disable-pip-version-check"]


def main():
    """Build; if that ends early, say why in one line."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    try:
        build()
    except KeyboardInterrupt:
        sys.exit("stopped")


def build():
    """Build .venv from scratch; `.venv/.ready` is written last, so a killed build is repeated."""
    ready = VENV / ".ready"
    with _one_build_at_a_time() as (lock_file, waited):
        if waited and ready.exists():
            return
        start = time.monotonic()
        uv = _find_uv()
        if not (uv and _install("uv", _uv_steps(uv), lock_file)):
            _check_venv_module()
            if not _install("pip", _pip_steps(), lock_file):
                sys.exit("make env: .venv could not be built; mend the cause above, then run it again")
        if not _run([*PIP, "check"], lock_file):
            sys.exit("make env: these packages do not fit together; `make lock` resolves them again")
        _say("Compiling the inner loops")
        if not _run([PYTHON, str(LIB / "compile_loops.py")], lock_file):
            print("make env: they will be compiled when they are first used", file=sys.stderr)
        ready.write_text(f"{PROJECT}\n")
        _say(f"Built .venv in {time.monotonic() - start:.0f} s")


def _uv_steps(uv):
    install = [uv, "pip", "install", "--compile-bytecode", "--python", PYTHON, "--no-deps"]
    return [
        [uv, "venv", "--no-project", "--python", sys.executable, str(VENV)],
        [*install, "-r", str(LOCK)],
        [*install, "--no-build-isolation", "-e", str(LIB)],
    ]


def _pip_steps():
    install = [*PIP, "install", "--no-deps"]
    # On all cores, while pip would use one. Without it each notebook compiles its imports anew, if Python may not write
    # beside them.
    compile_all = (
        f"import compileall; print('Compiling the packages', flush=True); "
        f"compileall.compile_dir({str(VENV / 'lib')!r}, quiet=2, workers=0)"
    )
    return [
        [sys.executable, "-m", "venv", str(VENV)],
        [*install, "--no-compile", "-r", str(LOCK)],
        [*install, "--no-build-isolation", "-e", str(LIB)],
        [PYTHON, "-c", compile_all],
    ]


def _install(tool, steps, lock_file):
    """Run the commands of a build from no .venv at all; return whether they went well."""
    _say(f"Building .venv with {tool} (Python {'.'.join(map(str, sys.version_info[:3]))})")
    if VENV.is_symlink():
        VENV.unlink()
    shutil.rmtree(VENV, ignore_errors=True)
    return all(_run(step, lock_file) for step in steps)


def _run(command, lock_file):
    """Run a command, which speaks for itself; return whether it went well."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, cwd=PROJECT, pass_fds=[lock_file])
    if done.returncode:
        print("failed, see above:", *command, file=sys.stderr, flush=True)
    return done.returncode == 0


def _find_uv():
    """Return the uv on PATH, or None; one that does not run (a version manager's empty shim) is none."""
    uv = shutil.which(os.environ.get("UV", "uv"))
    with contextlib.suppress(OSError):
        if uv and subprocess.run([uv, "--version"], capture_output=True).returncode == 0:
            return uv
    return None


@contextlib.contextmanager
def _one_build_at_a_time():
    """Lock requirements.lock: yield its handle, which commands inherit, and whether another build was waited for.

    Whoever kills this script may leave pip or uv running: the next build then waits until they are gone.
    """
    waited = False
    with open(LOCK) as file:
        with contextlib.suppress(OSError):  # a file system without locks
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                waited = True
                _say("Waiting for another build of .venv to end")
                fcntl.flock(file, fcntl.LOCK_EX)
        yield file.fileno(), waited


def _check_venv_module():
    missing = [name for name in ("venv", "ensurepip") if importlib.util.find_spec(name) is None]
    if missing:
        sys.exit(
            f"make env: {sys.executable} has no module {' and '.join(missing)}. On Debian and Ubuntu install "
            "python3-venv; or put uv on PATH; or name another Python: make env PYTHON=python3.12"
        )


def _say(text):
    print(text, flush=True)


if __name__ == "__main__":
    main()
