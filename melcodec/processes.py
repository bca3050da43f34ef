"""Processes that this one starts: deaf to Ctrl-C, about which their parent decides, and never there without it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker

PR_SET_PDEATHSIG = 1  # linux/prctl.h


@contextmanager
def sigint_held() -> Iterator[None]:
    """Ctrl-C reaches every process of a terminal; those started in here never hear it (on Windows, once they run)."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # it would be started with the first process, and let Ctrl-C through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def killed_on_error() -> Iterator[None]:
    """A block whose processes are killed when an exception leaves it: a pool would wait until they have done their work."""
    before = set(multiprocessing.active_children())
    try:
        yield
    except BaseException:
        for child in set(multiprocessing.active_children()) - before:
            child.kill()
        raise


def follow_parent() -> None:
    """Called by a spawned process first of all: it ignores Ctrl-C, and ends when its parent ends, whatever ended that.

    Start it from a thread that lives as long as it is wanted: to Linux that thread is the parent.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None, "a process of multiprocessing"

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, name="watcher", daemon=True).start()
    if sys.platform == "linux":  # also where foreign code never lets a Python thread run again
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
