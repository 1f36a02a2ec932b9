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


def busy_seconds() -> float:
    """Return the time that this machine's cores have worked or been stolen, in all, since it booted."""
    user, nice, system, _idle, _iowait, irq, softirq, steal = _first_line("/proc/stat").split()[1:9]
    return sum(map(int, (user, nice, system, irq, softirq, steal))) / _TICKS


def own_seconds() -> float:
    """Return the CPU time of this process and of the children it has waited for."""
    return sum(os.times()[:4])


def end(process: subprocess.Popen[str], patience_secs: float = 8.0) -> None:
    """Ask the session that *process* leads to end, then make it."""
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


def _first_line(path: str) -> str:
    with open(path, encoding="ascii") as file:
        return file.readline()
