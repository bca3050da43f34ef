"""Python processes without the seconds that importing torch takes: forked from one process that imported it once.

``Popen`` and ``run`` are those of ``subprocess``. What a test starts through them is a child process of its own, with its own
arguments, environment, folder, streams, signal mask, session and exit status. It differs from one of ``subprocess`` only in
that torch, matplotlib and the library part of melcodec are loaded already, with the environment of pytest. So a test that
is about importing, about Python's own options or about variables that Python reads at its start uses ``subprocess``.

``spawn_from_server`` does the same for the processes of ``multiprocessing``'s spawn method, which follow its own protocol;
and what a program started here spawns comes from a server of its own, forked before the program begins.

The server is this file run as a program. It never computes, so it has one thread, and forking it is safe. It forks twice:
the process between ends at once, and Linux makes the second one a child of the tests (PR_SET_CHILD_SUBREAPER).
Elsewhere everything is left to ``subprocess``.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import fcntl
import gc
import importlib
import inspect
import io
import json
import os
import pkgutil
import runpy
import signal
import socket
import subprocess
import sys
import threading
import time
import types
import warnings
from collections.abc import Mapping
from multiprocessing import process, util
from pathlib import Path

# The command line is left out: its modules are small, and those that it uses read the width of the terminal at import.
PRELOADED = (
    *("torch", "torchaudio", "torch.utils.tensorboard", "matplotlib.pyplot", "pyarrow.parquet", "scipy.signal"),
    *("torch._dynamo", "torch.distributed.run", "filelock"),  # of the first step of an optimizer, and of torchrun
)
REQUEST_BYTES = 1 << 18
MOST_FILES = 250  # of one message of a Unix socket
HIGH = 512  # file descriptors are moved above this before they take their places
PR_SET_NAME, PR_SET_CHILD_SUBREAPER = 15, 36  # linux/prctl.h
STOPPING = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM)
REAL_POPEN, REAL_SPAWN = subprocess.Popen, util.spawnv_passfds


# ---- the side of the tests


class _Server:
    """A process that forks, at the other end of ``control``, and its environment."""

    def __init__(self, control: socket.socket, environment: Mapping[str, str]) -> None:
        self.control, self.variables = control, _read_at_start(environment)
        self.lock = threading.Lock()
        self.prctl = ctypes.CDLL(None).prctl

    @classmethod
    def launch(cls) -> _Server:
        """Start one, which ends with this process."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"}
        command = [sys.executable, __file__, str(theirs.fileno())]
        # a session of its own: Ctrl-C in the terminal is for the tests, which end it
        server = REAL_POPEN(command, pass_fds=[theirs.fileno()], env=environment, start_new_session=True)
        theirs.close()

        def close() -> None:
            ours.close()
            server.wait()

        atexit.register(close)
        return cls(ours, environment)

    def start(self, request: dict[str, object], files: dict[int, int]) -> int:
        """Start a child of this process that has ``files``, by the number that each has there; its process id."""
        request |= {
            "files": list(files),
            "blocked": list(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
            "ignored": [number for number in STOPPING if signal.getsignal(number) is signal.SIG_IGN],
        }
        with self.lock:
            self.prctl(PR_SET_CHILD_SUBREAPER, 1)
            try:
                socket.send_fds(self.control, [json.dumps(request).encode()], list(files.values()))
                return int(self.control.recv(64))
            except OSError as error:
                raise RuntimeError("the server of tests/forked.py has ended; its own error stands on stderr") from error
            finally:  # orphans of the tests are none of our business
                self.prctl(PR_SET_CHILD_SUBREAPER, 0)


_server: _Server | None = None


def _read_at_start(environment: Mapping[str, str]) -> dict[str, str]:
    """Variables that Python reads at its start: with other values only a new Python will do."""
    return {name: value for name, value in environment.items() if name.startswith("PYTHON") and name != "PYTHONUNBUFFERED"}


def _request(command: list[object], env: dict[str, str] | None) -> dict[str, object] | None:
    """What the server would have to do; None for what only a new Python can do."""
    global _server
    words, options = [os.fsdecode(word) for word in command], []
    environment = dict(os.environ if env is None else env)
    if sys.platform != "linux" or words[0] != sys.executable:
        return None
    while words[1] in ("-B", "-u", "-W"):
        if words.pop(1) == "-W":
            options.append(words.pop(1))
    how = words[1] if words[1] in ("-m", "-c") else ""
    if (not how and words[1].startswith("-")) or any(":" in option for option in options):
        return None
    if _server is None:
        _server = _Server.launch()
    if _read_at_start(environment) != _server.variables:
        return None
    return {"how": how, "words": words[2:] if how else words[1:], "warnings": options, "environment": environment}


class Popen(subprocess.Popen):
    """``subprocess.Popen``; Python programs are forked from the server."""

    def _execute_child(self, *args, **kwargs):
        given = inspect.signature(REAL_POPEN._execute_child).bind(self, *args, **kwargs).arguments
        request = None if given["pass_fds"] or given["preexec_fn"] else _request(given["args"], given["env"])
        if request is None:
            super()._execute_child(*args, **kwargs)
            return
        request |= {"cwd": os.fsdecode(given["cwd"] or Path.cwd()), "session": given["start_new_session"]}
        pipes = [given[name] for name in ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")]
        files = {number: number if pipe == -1 else pipe for number, pipe in enumerate([pipes[0], pipes[3], pipes[5]])}
        self.pid = _server.start(request, files)
        self._child_created = True
        self._close_pipe_fds(*pipes)


def run(command, *, input=None, capture_output=False, timeout=None, check=False, **options) -> subprocess.CompletedProcess:
    """``subprocess.run`` with this module's ``Popen``."""
    if capture_output:
        options |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    if input is not None:
        options["stdin"] = subprocess.PIPE
    with Popen(command, **options) as child:
        try:
            out, err = child.communicate(input, timeout=timeout)
        except BaseException:
            child.kill()
            raise
    done = subprocess.CompletedProcess(command, child.returncode, out, err)
    if check:
        done.check_returncode()
    return done


def _spawn(path, command, files):
    """``multiprocessing.util.spawnv_passfds``."""
    request = _request(list(command), None)
    if request is None or len(files) + 3 > MOST_FILES:
        return REAL_SPAWN(path, command, files)
    request |= {"cwd": str(Path.cwd()), "session": False}
    return _server.start(request, {number: number for number in sorted({0, 1, 2, *map(int, files)})})


@contextlib.contextmanager
def spawn_from_server():
    """While it lasts, ``multiprocessing`` spawns from the server."""
    util.spawnv_passfds = _spawn
    yield
    util.spawnv_passfds = REAL_SPAWN


# ---- the side of the server


def preload(root: Path) -> None:
    """Import what takes long."""
    for name in PRELOADED:
        importlib.import_module(name)
    package = importlib.import_module("melcodec")
    assert Path(package.__file__).is_relative_to(root), package.__file__
    for found in pkgutil.walk_packages(package.__path__, "melcodec."):
        if ".cli" not in found.name and not found.name.endswith(("__main__", "ray_executor")):
            with contextlib.suppress(ImportError):
                importlib.import_module(found.name)


def serve(control: socket.socket) -> tuple[dict[str, object], list[int]]:
    """Fork a process for each request; returns, in that process, what it is to do and the files that it was given."""
    while True:
        message, files, _, _ = socket.recv_fds(control, REQUEST_BYTES, MOST_FILES)
        if not message:
            os._exit(0)
        reading, writing = os.pipe()
        between = os.fork()
        if not between:
            between = os.getpid()
            child = os.fork()
            if child:
                os.write(writing, str(child).encode())
                os._exit(0)
            for file in (reading, writing, control.detach()):
                os.close(file)
            while os.getppid() == between:
                time.sleep(0.0005)
            return json.loads(message), files
        os.waitpid(between, 0)  # from now on the tests are its parent
        control.send(os.read(reading, 64))
        for file in (reading, writing, *files):
            os.close(file)


def serve_own() -> tuple[dict[str, object], list[int]] | None:
    """Fork a server for what this program will spawn, which it could not safely fork itself once it has computed.

    Returns None in the program, and in a process of the server what ``serve`` returns.
    """
    global _server
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    server = os.fork()
    if not server:
        ours.close()
        name("server")
        for number in STOPPING:  # meant for the program, with which this ends
            signal.signal(number, signal.SIG_IGN)
        return serve(theirs)
    theirs.close()
    _server = _Server(ours, os.environ)
    util.spawnv_passfds = _spawn
    return None


def name(what: str) -> None:
    """Set the name of this process in /proc/PID/comm."""
    ctypes.CDLL(None).prctl(PR_SET_NAME, what.encode())


def become(request: dict[str, object], files: list[int]) -> None:
    """Take on the files, folder, environment, signals and session that were asked for."""
    if request["session"]:
        os.setsid()
    moved = [fcntl.fcntl(file, fcntl.F_DUPFD_CLOEXEC, HIGH) for file in files]
    for file in files:
        os.close(file)
    for number, file in zip(request["files"], moved, strict=True):
        os.dup2(file, number)  # inheritable
        os.close(file)
    os.chdir(request["cwd"])
    process.ORIGINAL_DIR = request["cwd"]  # where those that it spawns start
    os.environ.clear()
    os.environ.update(request["environment"])
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN if number in request["ignored"] else signal.SIG_DFL)
    if signal.SIGINT not in request["ignored"]:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, request["blocked"])
    for option in request["warnings"]:
        sys.warnoptions.append(option)  # Pythons that it starts take it over
        warnings.simplefilter(option)
    at_once = bool(os.environ.get("PYTHONUNBUFFERED"))
    sys.stdin = sys.__stdin__ = open(0, closefd=False)
    sys.stdout = sys.__stdout__ = text(1, line_buffering=os.isatty(1), write_through=at_once)
    sys.stderr = sys.__stderr__ = text(2, line_buffering=True, write_through=at_once, errors="backslashreplace")


def text(number: int, **options: object) -> io.TextIOWrapper:
    return io.TextIOWrapper(open(number, "wb", closefd=False), **options)


def execute(how: str, first: str, *rest: str) -> int:
    """Do as ``python -m MODULE``, ``python -c CODE`` and ``python SCRIPT`` do; returns the exit status."""
    sys.argv = [how or first, *rest]
    try:
        execute_main(how, first)
    except SystemExit as ended:
        if not isinstance(ended.code, int | None):
            raise
        return ended.code or 0
    return 0


def execute_main(how: str, first: str) -> None:
    if how == "-m":
        sys.path.insert(0, str(Path.cwd()))
        runpy.run_module(first, run_name="__main__", alter_sys=True)
        return
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    sys.path.insert(0, "" if how else str(Path(first).parent))
    if not how:
        main.__file__ = first
    exec(compile(first if how else Path(first).read_text(), "<string>" if how else first, "exec"), vars(main))


def end(status: int) -> None:
    """End as Python does, but for clearing every module of torch, which takes longer than most programs of the tests."""
    threading._shutdown()  # waits for threads
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        sys.exit(status)  # Python complains
    os._exit(status)


if __name__ == "__main__":
    sys.path.pop(0)  # tests/
    sys.modules["tests.forked"] = sys.modules["__main__"]
    subprocess.Popen = Popen  # torchrun starts its ranks with it
    preload(Path(__file__).parent.parent)
    gc.freeze()
    work = serve(socket.socket(fileno=int(sys.argv[1])))
    while work:
        asked, given = work
        become(asked, given)
        if "--multiprocessing-fork" in asked["words"]:
            name("spawn_main")
            break
        work = serve_own()
    status = execute(asked["how"], *asked["words"])
    if asked["warnings"]:  # where warnings are errors, let Python take everything down and complain
        sys.exit(status)
    end(status)
