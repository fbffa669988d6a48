"""The machine: processor, caches, memory bandwidth, and load by other programs."""

import os
import platform
import time
from collections import deque
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import torch

_CACHES = Path("/sys/devices/system/cpu")
# Assumed size of the last-level cache if it cannot be read.
_CACHE_AT_MOST = 256 * 2**20
# Multiple of the last-level cache that is read to measure bandwidth, and number of passes.
_STREAMED, _PASSES = 4, 5
# Seconds over which load is measured; the kernel counts in hundredths.
_WINDOW = 1.0
# Columns of /proc/stat that are not work: idle, and waiting for a disk.
_IDLE = (3, 4)


class Machine(NamedTuple):
    """Constant properties of the machine; unknown ones are None.

    Attributes
    ----------
    machine : str
        Processor and libraries that do the arithmetic.
    cores, threads : int
        Cores this process may use, and threads of torch.
    cache_bytes : int or None
        Size of all parts of the last-level cache.
    bandwidth : float
        Bytes per second that the threads read from memory.
    """

    machine: str
    cores: int
    threads: int
    cache_bytes: int | None
    bandwidth: float


class Conditions(NamedTuple):
    """Changing properties of the machine; unknown ones are None.

    Attributes
    ----------
    others : float or None
        Cores used by other programs and by the host of a virtual machine.
    load : float or None
        The load average of the last minute.
    """

    others: float | None
    load: float | None


def this_machine() -> Machine:
    """Return the properties of this machine; measure its bandwidth."""
    threads = torch.get_num_threads()
    return Machine(processor(), cores(), threads, cache_bytes(), read_bandwidth(threads))


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


def streamed_bytes(cached: int | None) -> int:
    """Return a number of bytes that a cache of this size cannot hold."""
    return 2 * (cached or _CACHE_AT_MOST)


@lru_cache(maxsize=1)
def stream(cached: int | None) -> tuple[Callable[[], object], int]:
    """Return a call that reads an array from memory once, and the bytes of the array."""
    array = torch.ones(streamed_bytes(cached) // 4)
    return array.sum, array.nbytes


@lru_cache(maxsize=4)
def read_bandwidth(threads: int) -> float:
    """Return the memory bandwidth of the threads of torch in bytes per second.

    It is that of the fastest pass over a float32 array of four times the last-level cache. The
    passes are a sum, a maximum, sums of eight parts, and a product of two halves: reads without
    writes, in analogy to the copy of STREAM (McCalpin, 1995). The fastest pass is the least
    limited by its arithmetic.

    Parameters
    ----------
    threads : int
        Number of threads of torch, the key under which the result is cached.
    """
    del threads
    size = _STREAMED * (cache_bytes() or _CACHE_AT_MOST // _STREAMED) // 4
    array = torch.ones(max(16, size // 16 * 16))
    halves, parts = array.view(2, -1), array.view(8, -1)
    reads: tuple[Callable[[], object], ...] = (
        array.sum,
        array.max,
        lambda: parts.sum(1),
        lambda: torch.dot(halves[0], halves[1]),
    )
    fastest = float("inf")
    with torch.inference_mode():
        for read in reads * _PASSES:
            start = time.perf_counter()
            read()
            fastest = min(fastest, time.perf_counter() - start)
    return array.nbytes / fastest


class Watch:
    """A record of the work of other programs over at least the last second."""

    def __init__(self) -> None:
        self._records: deque[tuple[float, float]] = deque()
        self.conditions()

    def conditions(self) -> Conditions:
        """Return the conditions of the last second, or since the previous call."""
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
        return Conditions(taken, load)


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
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), None
    )
