"""A browser, and a JupyterLab on a copy of the project, for the tests that drive them."""

import os
import shutil
import socket
import subprocess
import sys
import time

import pytest
from chromium import CHROMIUM, open_chromium
from places import PROJECT


@pytest.fixture(scope="module")
def browser():
    if not CHROMIUM:
        pytest.skip("no Chromium on this machine (Debian: apt-get install chromium)")
    with open_chromium() as chromium:
        yield chromium


@pytest.fixture(scope="module")
def project_copy(tmp_path_factory):
    """Copy what an interactive user needs, so that the test writes to a `reports/` of its own."""
    copy = tmp_path_factory.mktemp("project")
    for name in ("notebooks", "data/sample", "lib/jupyter"):
        shutil.copytree(PROJECT / name, copy / name, ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    shutil.copy(PROJECT / "environment.yml", copy)
    return copy


@pytest.fixture(scope="module")
def lab(browser, project_copy, tmp_path_factory):
    """Start what `make lab` starts; yield its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    home = tmp_path_factory.mktemp("home")
    environment = {**os.environ, "JUPYTER_CONFIG_DIR": str(home / "config"), "JUPYTER_DATA_DIR": str(home / "data")}
    environment["JUPYTER_RUNTIME_DIR"] = str(home / "runtime")
    options = f"ARGS=--no-browser --allow-root --port={port} --ip=127.0.0.1 --IdentityProvider.token=test"
    handed = {name: text for name, text in environment.items() if not name.startswith(("MAKE", "MFLAGS"))}
    said = subprocess.check_output(["make", "-n", "lab", options], cwd=PROJECT, env=handed, text=True)
    command = said[said.index("PATH=") :].replace(" .venv/bin/python", f" {sys.executable}", 1)
    with open(home / "log", "w") as log:
        server = subprocess.Popen(
            ["sh", "-c", f"exec env {command}"], stdout=log, stderr=subprocess.STDOUT, env=environment,
            cwd=project_copy,
        )  # fmt: skip
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.3)
    yield f"http://127.0.0.1:{port}"
    server.terminate()
    server.wait(20)
