"""What Linux says about processes: /proc, limits, and the end of a process group."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


def raise_descriptor_limit() -> None:
    """Allow as many open sockets as the hard limit does; children inherit it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def cpu_seconds(session: int) -> float:
    """Return the CPU time that the living processes of *session* have used, in steps of 10 ms."""
    return sum(sum(map(int, fields[11:13])) for fields in _stats(session).values()) / _TICKS


def memory_mib(session: int) -> float:
    """Return the memory of the processes of *session*; pages that they share count once."""
    return sum(_pss_kib(pid) for pid in _stats(session)) / 1024


def end(process: subprocess.Popen[str], patience_secs: float = 8.0) -> None:
    """Send SIGTERM to the session that *process* leads, and SIGKILL if it does not end."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience_secs)


def _stats(session: int) -> dict[int, list[str]]:
    """Return the fields of /proc/PID/stat after the command's name, for each process of *session*."""
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
