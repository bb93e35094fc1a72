"""Kernels that start at once: forked from one process that has already imported what notebooks import.

A notebook's own interpreter spends three seconds on imports before its first cell runs. If processes can be forked
safely after such imports (Linux), `PreloadedManager` replaces Jupyter's own manager; a notebook sees no difference.
"""

import asyncio
import multiprocessing
import multiprocessing.resource_tracker
import os
import signal
import sys
import threading

from jupyter_client import AsyncKernelManager
from jupyter_client.provisioning import LocalProvisioner

_PRELOAD = [
    "ipykernel.kernelapp", "matplotlib_inline.backend_inline", "kvprefix.report.facts.workload",
    "kvprefix.report.plots.sharing", "kvprefix.report.facts.cache", "kvprefix.report.plots.cache",
    "kvprefix.report.plots.workload", "kvprefix.report.sections", "kvprefix.studies.cache", "kvprefix.traces.workload",
]  # fmt: skip
_context = multiprocessing.get_context("forkserver") if sys.platform == "linux" else None


def start_preloading():
    """Start the process that kernels are forked from, if it is not there; return the manager class to use."""
    if _context is None:
        return AsyncKernelManager
    os.environ.setdefault("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    _context.set_forkserver_preload(_PRELOAD)
    multiprocessing.resource_tracker.ensure_running()  # which would let SIGINT through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # Ctrl-C is ours; it would print a traceback
    try:
        multiprocessing.forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return PreloadedManager


class PreloadedManager(AsyncKernelManager):
    """Jupyter's manager, with kernels forked from the preloaded process."""

    async def _async_pre_start_kernel(self, **options):
        if self.provisioner is None:
            self.provisioner = _ForkProvisioner(kernel_id="preloaded", kernel_spec=self.kernel_spec, parent=self)
        return await super()._async_pre_start_kernel(**options)


class _ForkProvisioner(LocalProvisioner):
    async def launch_kernel(self, cmd, **options):
        # cmd: python -m ipykernel_launcher ARGUMENTS
        place = options.get("cwd") or os.getcwd(), dict(os.environ)
        process = _context.Process(target=_run_kernel, args=(cmd[3:], *place), daemon=True)
        await asyncio.to_thread(process.start)
        self.process = _Popen(process)
        self.pid = process.pid
        return self.connection_info


class _Popen:
    """What a provisioner uses of `subprocess.Popen`, for a forked process."""

    stdin = stdout = stderr = None

    def __init__(self, process):
        self._process = process
        self.pid = process.pid

    def poll(self):
        return self._process.exitcode

    def wait(self):
        self._process.join()
        return self._process.exitcode

    def send_signal(self, number):
        os.kill(self.pid, number)

    def terminate(self):
        self._process.terminate()

    def kill(self):
        self._process.kill()


def _run_kernel(arguments, folder, environment):
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # until a cell runs
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    multiprocessing.set_start_method(None, force=True)  # what a notebook itself starts is started as usual
    from ipykernel.kernelapp import IPKernelApp

    os.environ.clear()
    os.environ.update(environment)  # as it is now: the parent process is older
    threading.Thread(target=_follow_parent, daemon=True).start()
    os.chdir(folder)
    sys.argv = ["ipykernel_launcher", *arguments]
    IPKernelApp.launch_instance(arguments)


def _follow_parent():
    """End with the process that asked for this one, however it ends."""
    multiprocessing.parent_process().join()
    os._exit(1)
