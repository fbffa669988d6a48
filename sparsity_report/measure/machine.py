"""The machine that things are timed on: what it is, and what else it does meanwhile."""

from __future__ import annotations

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
# Where the size of the last-level cache cannot be read, it is hardly larger.
_CACHE_AT_MOST = 256 * 2**20
# Times that many of the last-level cache are read to know how fast memory is.
_STREAMED, _PASSES = 4, 5
# Ticks of the kernel's statistics are a hundredth of a second.
_WINDOW = 1.0
# What of a line of /proc/stat is no work: idle, and waiting for a disk.
_IDLE = (3, 4)


class Machine(NamedTuple):
    """What stays as it is while things are timed; what cannot be read is None.

    Attributes
    ----------
    machine : str
        Processor and libraries that do the arithmetic.
    cores, threads : int
        Cores this process may use, and threads torch computes with.
    cache_bytes : int or None
        Of the last-level cache, of all its parts together.
    bandwidth : float
        Bytes per second that these threads read from memory.
    """

    machine: str
    cores: int
    threads: int
    cache_bytes: int | None
    bandwidth: float


class Conditions(NamedTuple):
    """What changes while things are timed; what cannot be read is None.

    Attributes
    ----------
    others : float or None
        Cores that other programs, and the host of a virtual machine, took.
    load : float or None
        The load average of the last minute.
    frequency : float or None
        Of the first core, in Hz.
    """

    others: float | None
    load: float | None
    frequency: float | None


def this_machine() -> Machine:
    """Look at the machine, and measure how fast it reads."""
    threads = torch.get_num_threads()
    return Machine(processor(), cores(), threads, cache_bytes(), read_bandwidth(threads))


def cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@lru_cache(maxsize=1)
def processor() -> str:
    """Name the processor and the libraries that do the arithmetic."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next(line.split(":", 1)[1].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
    mkl = ", MKL" if torch.backends.mkl.is_available() else ""
    return f"{name}, torch {torch.__version__}{mkl}"


def cache_bytes(root: Path = _CACHES) -> int | None:
    """Return the size of the last-level cache, of all its parts together; None if not known.

    Parameters
    ----------
    root : pathlib.Path
        Where Linux tells of processors.
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
    """Return how many bytes together are surely not in a cache of such a size."""
    return 2 * (cached or _CACHE_AT_MOST)


@lru_cache(maxsize=1)
def stream(cached: int | None) -> tuple[Callable[[], object], int]:
    """Return what reads an array from memory, all of it once, and how many bytes that are."""
    array = torch.ones(streamed_bytes(cached) // 4)
    return array.sum, array.nbytes


@lru_cache(maxsize=4)
def read_bandwidth(threads: int) -> float:
    """Return the bytes per second that so many threads of torch read from memory.

    The fastest of some passes over an array of four times the last-level cache: of single
    precision numbers the sum, the largest, the sums of eight parts side by side and the product of
    two halves, a read without a write as STREAM has it for a copy (McCalpin, 1995). A pass is
    nothing but a read where its arithmetic keeps up and enough of them are under way at a time,
    so the fastest is nearest to the limit.

    Parameters
    ----------
    threads : int
        Those torch computes with: its own number, for which the result is kept.
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
    """Watches what other programs do, over the last second at least."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, float]] = deque()
        self.conditions()

    def conditions(self) -> Conditions:
        """Return how things stood since a second ago, or since it was last asked."""
        now, others = time.perf_counter(), _work_of_others()
        taken = None
        if others is not None:
            while len(self._seen) > 1 and now - self._seen[1][0] >= _WINDOW:
                self._seen.popleft()
            if self._seen and now > self._seen[0][0]:
                since, before = self._seen[0]
                taken = max(0.0, (others - before) / (now - since))
            self._seen.append((now, others))
        load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
        return Conditions(taken, load, _frequency())


def _work_of_others() -> float | None:
    """Return seconds of all cores that were not idle and not this process's; None if not known."""
    try:
        line = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()
        ticks = [int(each) for each in line[1:9]]
    except (OSError, ValueError):
        return None
    if line[0] != "cpu" or len(ticks) < 8 or not any(ticks):
        return None
    worked = sum(ticks) - sum(ticks[place] for place in _IDLE)
    return worked / os.sysconf("SC_CLK_TCK") - time.process_time()


def _frequency() -> float | None:
    try:
        place = _CACHES / "cpu0" / "cpufreq" / "scaling_cur_freq"
        return 1e3 * int(place.read_text(encoding="ascii"))
    except (OSError, ValueError):
        pass
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return 1e6 * next(float(line.split(":")[1]) for line in lines if line.startswith("cpu MHz"))
    except (OSError, StopIteration, ValueError):
        return None
