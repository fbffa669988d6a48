"""The machine: processor, caches, and load by other programs."""

import os
import platform
import time
from collections import deque
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

_CACHES = Path("/sys/devices/system/cpu")
#: Assumed size of the last-level cache if it cannot be read.
CACHE_AT_MOST = 256 * 2**20
# Seconds over which load is measured; the kernel counts in hundredths.
_WINDOW = 1.0
# Columns of /proc/stat that are not work: idle, and waiting for a disk.
_IDLE = (3, 4)


def this_machine() -> dict[str, Any]:
    """Return the columns that describe this machine; unknown ones are None.

    ``machine`` names the processor and the libraries that do the arithmetic. ``cores`` are those
    that this process may use, ``threads`` those of torch. ``cache_bytes`` is the size of all parts
    of the last-level cache.
    """
    return {
        "machine": processor(),
        "cores": cores(),
        "threads": torch.get_num_threads(),
        "cache_bytes": cache_bytes(),
    }


def cores() -> int:
    """Return the number of cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@lru_cache(maxsize=1)
def processor() -> str:
    """Return the names of the processor and of the libraries that do the arithmetic."""
    name = _model_name() or platform.processor() or platform.machine()
    mkl = ", MKL" if torch.backends.mkl.is_available() else ""
    return f"{name}, torch {torch.__version__}{mkl}"


def cache_bytes(root: Path = _CACHES) -> int | None:
    """Return the size in bytes of all parts of the last-level cache, None if unknown.

    Parameters
    ----------
    root : pathlib.Path
        Folder in which Linux describes the processors.
    """
    sizes: dict[tuple[int, str], int] = {}
    try:
        for index in root.glob("cpu[0-9]*/cache/index*"):
            level, kind, size, shared = (
                (index / name).read_text(encoding="ascii").strip()
                for name in ("level", "type", "size", "shared_cpu_list")
            )
            if kind != "Instruction" and size.endswith("K"):
                sizes[int(level), shared] = 1024 * int(size[:-1])
    except (OSError, ValueError):
        return None
    last = max((level for level, _ in sizes), default=0)
    return sum(size for (level, _), size in sizes.items() if level == last) or None


class Watch:
    """A record of the work of other programs over at least the last second."""

    def __init__(self) -> None:
        self._records: deque[tuple[float, float]] = deque()
        self.conditions()

    def conditions(self) -> dict[str, float | None]:
        """Return the columns for the last second, or since the previous call; None if unknown.

        ``others`` is the number of cores used by other programs and by the host of a virtual
        machine, ``load`` the load average of the last minute.
        """
        now, others = time.perf_counter(), _work_of_others()
        taken = None
        if others is not None:
            while len(self._records) > 1 and now - self._records[1][0] >= _WINDOW:
                self._records.popleft()
            if self._records and now > self._records[0][0]:
                since, before = self._records[0]
                taken = max(0.0, (others - before) / (now - since))
            self._records.append((now, others))
        load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
        return {"others": taken, "load": load}


def _work_of_others() -> float | None:
    """Return seconds of work of all cores for other processes, None if unknown."""
    try:
        line = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()
        ticks = [int(each) for each in line[1:9]]
    except (OSError, ValueError):
        return None
    if line[0] != "cpu" or len(ticks) < 8 or not any(ticks):
        return None
    worked = sum(ticks) - sum(ticks[place] for place in _IDLE)
    return worked / os.sysconf("SC_CLK_TCK") - time.process_time()


def _model_name() -> str | None:
    """Return the name of the first processor on Linux, None if it is unknown."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, None)
