"""Run cases under limits: of processor time, of memory, of what may come of them."""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import resource
import shutil
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import sparsity_report as sr
from fuzz.family import Base, Case, Family, cases, write

#: Bytes of growth of a case, and seconds after its time is over until a process is given up.
GROWTH, GIVEN_UP = 2**30, 30
GOOD = ("right", "refused")
BAD = ("traceback", "hang", "death", "memory", "wrong")
# One line for people is not a page.
_LONGEST = 2500


@dataclass(frozen=True)
class Outcome:
    """What came of a case: one of :data:`GOOD` or :data:`BAD`, and what was said."""

    kind: str
    said: str = ""


def judge(case: Case, folder: Path) -> Outcome:
    """Write the files of a case and open them."""
    write(case.files(), folder)
    began = time.process_time()
    try:
        wrong = case.family.judge(folder, case.base)
        outcome = Outcome("wrong", wrong) if wrong else Outcome("right")
    except sr.SparsityReportError as error:
        said = str(error)
        plain = said.isprintable() and 0 < len(said) <= _LONGEST
        outcome = Outcome("refused" if plain else "wrong", said)
    except MemoryError:
        outcome = Outcome("memory", traceback.format_exc(limit=-6))
    except Exception:  # what is looked for
        outcome = Outcome("traceback", traceback.format_exc(limit=-6))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if (took := time.process_time() - began) > case.family.seconds:
        return Outcome("hang", f"{took:.1f} s; {outcome.kind}: {outcome.said}")
    return outcome


def run(
    family: Family,
    folder: Path,
    numbers: tuple[int, int, int],
    told: Callable[[int, Case, Outcome], None],
) -> Counter[str]:
    """Run cases in a process of their own, which is started again where one ends it.

    Parameters
    ----------
    family : Family
    folder : Path
        Is there for as long as the run takes; disposable.
    numbers : tuple of int
        Seed, number of the first case, and of the first that is not run.
    told : callable
        Called with number, case and outcome of each.
    """
    seed, start, stop = numbers
    bases = family.bases(folder / "bases")
    drawn = cases(family, bases, seed, start, stop)
    counts: Counter[str] = Counter()
    place = 0
    while place < len(drawn):
        for outcome in _served(drawn[place:], folder):
            counts[outcome.kind] += 1
            told(start + place, drawn[place], outcome)
            place += 1
    return counts


def _served(drawn: Sequence[Case], folder: Path) -> Any:
    """Yield outcomes until there are no more cases or the process has ended."""
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(
        target=_serve, args=(there, drawn, folder)
    )
    process.start()
    there.close()
    try:
        for case in drawn:
            if not here.poll(limit := case.family.seconds + GIVEN_UP):
                yield Outcome("hang", f"no answer for {limit} s")
                return
            try:
                yield Outcome(*here.recv())
            except EOFError:
                process.join()
                yield Outcome("death", f"exit code {process.exitcode}")
                return
    finally:
        process.kill()
        process.join()
        here.close()


def _serve(pipe: Any, drawn: Sequence[Case], folder: Path) -> None:
    import torch

    torch.set_num_threads(1)
    gc.freeze()
    for number, case in enumerate(drawn):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with _limited(4 * GROWTH):
            outcome = judge(case, folder / f"{os.getpid()}-{number}")
        grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
        if grown > GROWTH:
            outcome = Outcome("memory", f"{grown:,} bytes; {outcome.said}")
        pipe.send((outcome.kind, outcome.said))


@contextmanager
def _limited(growth: int) -> Iterator[None]:
    """Let the address space grow by so much and no more."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + growth, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def shrunk(case: Case, folder: Path, outcome: Outcome) -> Case:
    """Return a case with as few changes as still have this kind of outcome."""
    for step in case.steps:
        fewer = replace(case, steps=tuple(each for each in case.steps if each != step))
        if fewer.steps and _once(fewer, folder).kind == outcome.kind:
            case = fewer
    return case


def _once(case: Case, folder: Path) -> Outcome:
    return next(iter(_served([case], folder)))


def keep(case: Case, outcome: Outcome, folder: Path) -> Path:
    """Write what reproduces an outcome: the files, the changes, what was said."""
    name = f"{case.family.name}-{outcome.kind}-{'-'.join(f'{step:x}' for step in case.steps)}"
    target = folder / name
    shutil.rmtree(target, ignore_errors=True)
    write(case.files(), target)
    facts = {"base": case.base.name, "steps": case.steps, "kind": outcome.kind}
    (target / "case.json").write_text(json.dumps(facts), encoding="utf-8")
    (target / "said.txt").write_text(outcome.said, encoding="utf-8", errors="backslashreplace")
    return target


def again(family: Family, bases: Sequence[Base], kept: Path) -> Case:
    """Return the case that :func:`keep` has written."""
    facts = json.loads((kept / "case.json").read_text(encoding="utf-8"))
    base = next(base for base in bases if base.name == facts["base"])
    return Case(base, tuple(facts["steps"]), family)
