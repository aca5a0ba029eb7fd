"""Runs code of a submission within bounds: a process that answers jobs, a JSON line each.

    python course/sandbox.py signs          # then a job a line on stdin; see `grading.Sandbox`

A job's code runs in a process of its own, in a folder of its own, which is all it can write to.
Everywhere: Python's audit hooks refuse other files, processes, signals and sockets. On POSIX:
limits on time, memory and the size of files. On Linux, by the kernel, where it allows: no network
and no other processes (namespaces), and no reading but of the folder and of what Python is
installed in (Landlock).

On Linux jobs are forks of this process, which has torch loaded and has never seen a submission.
Elsewhere this process runs one job and ends.
"""

import ctypes
import importlib
import json
import os
import re
import signal
import site
import struct
import sys
import time
import traceback
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import torchvision  # noqa: F401  (as nearly every submission does)

try:
    import resource
except ImportError:  # not POSIX
    resource = None

FORKS = sys.platform == "linux"
PROJECT = Path(__file__).resolve().parent.parent
FILE_BYTES = 64 << 20
CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 1 << 27, 1 << 28, 1 << 29, 1 << 30
PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS = 1, 38
LANDLOCK = 444  # create_ruleset; add_rule and restrict_self follow, on every processor
READ, WRITE_FILE = 1 | 4 | 8, 2  # execute, read a file, list a folder
REFUSED = (
    "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.system", "os.kill",
    "os.killpg", "subprocess.Popen", "socket.connect", "socket.bind", "socket.getaddrinfo",
    "socket.sendto", "signal.pthread_kill",
)  # fmt: skip
CHANGES = ("os.remove", "os.rmdir", "os.rename", "os.mkdir", "os.chmod", "os.chown", "os.link",
           "os.symlink", "os.truncate", "os.utime", "shutil.rmtree")  # fmt: skip


def main() -> None:
    probes = load_probes(sys.argv[1:])
    torch.set_num_threads(1)
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    for line in sys.stdin:
        job = json.loads(line)
        answer = fork_job(job, probes) if FORKS else run_job(job, probes)
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
        if not FORKS:
            os._exit(0)


def load_probes(names: list[str]) -> dict[str, ModuleType]:
    """Import what each assignment asks, and then forget the project."""
    sys.path[0] = str(PROJECT)
    probes = {name: importlib.import_module(f"course.{name}.probes") for name in names}
    del sys.path[0]
    for name in [name for name in sys.modules if name.partition(".")[0] == "course"]:
        del sys.modules[name]
    return probes


# ---------------------------------------------------------------- a job


def fork_job(job: dict[str, Any], probes: dict[str, ModuleType]) -> dict[str, Any]:
    """Run a job in a fork; return how it ended."""
    pid = os.fork()
    if pid == 0:
        try:
            os.setsid()
            separate()
            run_job(job, probes)
        finally:
            os._exit(0)
    end, deadline, killed = 0, time.monotonic() + 3 * job["seconds"], False
    while True:
        done, end, used = os.wait4(pid, os.WNOHANG)
        if done:
            break
        if time.monotonic() > deadline and not killed:
            killed = True
            os.killpg(pid, signal.SIGKILL)
        time.sleep(0.002)
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)  # what it has left running
    ended = Path(job["folder"]) / "ended.json"
    # The first process of its own world hears of the limit by its second signal alone.
    spent = used.ru_utime + used.ru_stime >= job["seconds"]
    by_limit = os.WIFSIGNALED(end) and os.WTERMSIG(end) in (signal.SIGXCPU, signal.SIGKILL)
    if killed or (by_limit and spent):
        return {"end": "time"}
    if os.WIFSIGNALED(end):
        return {"end": "killed", "message": signal.Signals(os.WTERMSIG(end)).name}
    with suppress(OSError, ValueError, LookupError, TypeError, AttributeError):  # theirs, perhaps
        said = json.loads(ended.read_text(encoding="utf-8"))
        words = {key: str(said.get(key, "")) for key in ("type", "message", "file")}
        if said["end"] in ("done", "memory", "error"):
            return {"end": said["end"], **words, "line": int(said.get("line", 0))}
    return {"end": "exit", "message": str(os.WEXITSTATUS(end))}


def run_job(job: dict[str, Any], probes: dict[str, ModuleType]) -> dict[str, Any]:
    """Put a question to a submission, here; save what it answers and return how it ended."""
    folder = Path(job["folder"])
    null = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):  # what a submission prints is nobody's, a million lines as well
        os.dup2(null, stream)
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    probe = getattr(probes[job["assignment"]], job["probe"], None)
    pairs: list[list[Any]] = []
    save = torch.save
    try:
        confine(folder, job["seconds"], job["memory"])
        torch.manual_seed(0)
        module = importlib.import_module(job["module"])
        for label, value in probe(module) if probe else ():
            pairs.append([label, plain(value)])
        answer = {"end": "done"}
    except BaseException as error:  # SystemExit and KeyboardInterrupt are a submission's as well
        answer = describe(error, folder)
    save(pairs, folder / "observed.pt")
    (folder / "ended.json").write_text(json.dumps(answer), encoding="utf-8")
    return answer


def plain(value: Any) -> Any:
    """Return a value of a kind that is read back without running code."""
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    if isinstance(value, tuple | list):
        return [plain(one) for one in value]
    kept = isinstance(value, bool | int | float | str | None)
    return value if kept else re.sub(r" at 0x\w+", "", str(value))


def describe(error: BaseException, folder: Path) -> dict[str, Any]:
    """Return an error in words, with the last line of the submission that it passed through."""
    first = str(error).strip().split("\n")[0][:300]
    if isinstance(error, MemoryError) or "allocate memory" in str(error):
        return {"end": "memory"}
    file, line = "", 0
    if isinstance(error, SyntaxError) and error.filename:
        file, line, first = Path(error.filename).name, error.lineno or 0, error.msg
    else:
        for frame in traceback.extract_tb(error.__traceback__):
            if Path(frame.filename).parent == folder:
                file, line = Path(frame.filename).name, frame.lineno
    kind = type(error).__name__
    return {"end": "error", "type": kind, "message": first, "file": file, "line": line}


# ---------------------------------------------------------------- bounds


def separate() -> None:
    """Go on without network, and as the first process of its own world, where that is allowed."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWUSER | CLONE_NEWNET | CLONE_NEWPID | CLONE_NEWIPC) != 0:
        return
    pid = os.fork()
    if pid == 0:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        return
    end = os.waitpid(pid, 0)[1]
    if os.WIFSIGNALED(end):
        signal.signal(signal.SIGXCPU, signal.SIG_DFL)
        os.kill(os.getpid(), os.WTERMSIG(end))
    os._exit(os.WEXITSTATUS(end))


def confine(folder: Path, seconds: int, memory: int) -> None:
    """Set the limits of this process, for good."""
    os.environ.update(HOME=str(folder), TMPDIR=str(folder), USER="student")
    if resource is not None:
        limits = {"CORE": 0, "FSIZE": FILE_BYTES, "NOFILE": 256}
        if sys.platform == "linux":
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            limits["AS"] = pages * resource.getpagesize() + memory
        for name, most in limits.items():
            resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (most, most))
        spent = int(time.process_time())
        resource.setrlimit(resource.RLIMIT_CPU, (spent + seconds, spent + seconds + 2))
    if sys.platform == "linux":
        restrict_files(folder)
    sys.addaudithook(make_hook(str(folder)))


def restrict_files(folder: Path) -> None:
    """Landlock: write in the folder alone, read there and where Python and its libraries are."""
    libc = ctypes.CDLL(None, use_errno=True)
    version = libc.syscall(LANDLOCK, None, 0, 1)
    if version < 1:
        return
    every = (1 << {1: 13, 2: 14, 3: 15, 4: 15}.get(version, 16)) - 1
    # Since version 4 also TCP; since 6 also signals and sockets without a file.
    rights = struct.pack("QQQ", every, 3, 3)[: 8 if version < 4 else 16 if version < 6 else 24]
    ruleset = libc.syscall(LANDLOCK, rights, len(rights), 0)
    libraries = {sys.prefix, sys.base_prefix, *sys.path, *site.getsitepackages()}
    system = ("/usr", "/lib", "/lib64", "/etc", "/proc", "/sys/devices/system/cpu")
    allowed = {one: READ for one in (*libraries, *system) if os.path.isdir(one)}
    for path, rights in (allowed | {"/dev/null": 4 | WRITE_FILE, str(folder): every}).items():
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
        libc.syscall(LANDLOCK + 1, ruleset, 1, struct.pack("=Qi", rights, place), 0)
        os.close(place)
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    libc.syscall(LANDLOCK + 2, ruleset, 0)
    os.close(ruleset)


def make_hook(folder: str):
    """Return what refuses, in Python's own words, all that the kernel might not."""
    solved = str(PROJECT / "course")

    def within(path: Any, place: str) -> bool:
        if not isinstance(path, str | bytes | os.PathLike):
            return isinstance(path, int)  # a file that is open already
        real = os.path.realpath(os.fsdecode(path))
        return real == place or real.startswith(place + os.sep)

    def hook(event: str, values: tuple) -> None:
        if event in REFUSED:
            raise PermissionError(f"{event} is not allowed while grading")
        if event == "open":
            path, mode, flags = values
            writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            if path == os.devnull or isinstance(path, int):
                return
            if writes and not within(path, folder):
                raise PermissionError("files outside the current folder cannot be written")
            if not writes and within(path, solved):
                raise PermissionError("the grader's own files cannot be read")
        elif event in CHANGES and not within(values[0], folder):
            raise PermissionError("files outside the current folder cannot be changed")

    return hook


if __name__ == "__main__":
    main()
