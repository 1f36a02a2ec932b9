"""Linux processes: /proc, limits, and the end of a process group."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


def raise_descriptor_limit() -> None:
    """Raise the limit of open files to the hard limit. Children inherit it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def cpu_seconds(session: int) -> float:
    """Return the CPU time of the living processes of *session*, to 10 ms."""
    return sum(sum(map(int, fields[11:13])) for fields in _stats(session).values()) / _TICKS


def memory_mib(session: int) -> float:
    """Return the memory of the processes of *session*.

    Pages that they share count once.
    """
    return sum(_pss_kib(pid) for pid in _stats(session)) / 1024


def end(process: subprocess.Popen[str], patience_secs: float = 8.0) -> None:
    """Send SIGTERM, then SIGKILL if needed, to the session of *process*.

    Closes its pipes.
    """
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience_secs)
    for pipe in filter(None, (process.stdin, process.stdout)):
        pipe.close()


def _stats(session: int) -> dict[int, list[str]]:
    """Return the fields of /proc/PID/stat by process of *session*.

    They are the fields after the command's name.
    """
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if int(fields[3]) == session:
                    found[int(entry.name)] = fields
    return found


def _pss_kib(pid: int) -> int:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1])
    return 0
