"""Other tools, each in an environment of its own below data/derived, and other commits of this project likewise."""

import shutil
import subprocess
import sys
import venv
from pathlib import Path

from table import NotHereError

PROJECT = Path(__file__).resolve().parents[2]
KEPT = PROJECT / "data/derived"
MAKE = ["env", "-u", "MAKEFLAGS", "-u", "MAKELEVEL", "make"]  # not with what `make bench` was given
PEERS = {  # version and module
    "kvcache-simulator": ("0.1.3", "kvcache_sim"),
    "libcachesim": ("0.3.5", "libcachesim"),
    "llmtrafficlens": ("0.13.4", "llmtrafficlens"),
    "kvlint": ("0.1.1", "kvlint"),
    "aisimulate": ("0.13.0.dev202610270000000085", "aisimulate"),  # 0.13.0 itself is no wheel on PyPI
    "vllm": ("0.33.0", "vllm"),
}


def name_peer(name):
    """Return a tool's name and version."""
    return f"{name} {PEERS[name][0]}"


def find_peer(name):
    """Return the folder of the programs of a tool's environment, which is built if it is not there."""
    version, module = PEERS[name]
    folder = KEPT / f"bench-{name}-{version}"
    python = folder / "bin/python"
    if not python.exists():
        venv.create(folder, with_pip=True)
    if subprocess.run([python, "-c", f"import {module}"], capture_output=True).returncode:
        print(f"installing {name} {version}", file=sys.stderr)
        command = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--only-binary", ":all:"]
        _run([*command, f"{name}=={version}"], f"{name} {version} does not install")
    return folder / "bin"


def find_commit(name):
    """Return a clone of this project at a commit, with an environment, which is built if it is not there."""
    folder = KEPT / f"bench-{name}"
    if not (folder / ".venv/.ready").exists():
        shutil.rmtree(folder, ignore_errors=True)
        print(f"building the project at {name}", file=sys.stderr)
        _run(["git", "cat-file", "-e", f"{name}^{{commit}}"], f"the repository has no commit {name}", cwd=PROJECT)
        _run(["git", "clone", "-q", str(PROJECT), str(folder)], "the repository cannot be cloned")
        _run(["git", "checkout", "-q", name], f"the repository has no commit {name}", cwd=folder)
        _run([*MAKE, "env"], f"the environment of {name} cannot be built", cwd=folder)
    return folder


def _run(command, said, cwd=None):
    try:
        done = subprocess.run(command, capture_output=True, text=True, cwd=cwd)
    except FileNotFoundError:
        raise NotHereError(f"{said}: there is no {command[0]}") from None
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no message"]
        errors = [line for line in lines if "error" in line.lower()] or lines
        raise NotHereError(f"{said}: {errors[-1][:200]}")
