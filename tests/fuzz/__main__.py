"""Run any number of damaged files: ``python -m tests.fuzz --cases 10000 --family safetensors``."""

from __future__ import annotations

import argparse
import gc
import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from random import Random
from types import FunctionType

os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(1, str(Path(__file__).resolve().parents[1] / "support"))

from fuzz.families import FAMILIES
from fuzz.family import Case, Family
from fuzz.runner import BAD, GOOD, Outcome, again, judge, keep, run, shrunk


def main() -> int:
    """Run the families that are asked for; the exit code is 1 where anything failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--family", choices=FAMILIES, action="append", help="default: all")
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--start", type=int, default=0, help="number of the first case")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--out", type=Path, default=Path("fuzz-failures"))
    parser.add_argument("--again", type=Path, help="a folder that an earlier run has kept")
    parser.add_argument("--guided", type=int, metavar="SECONDS", help="by coverage, with atheris")
    given = parser.parse_args()
    families = [FAMILIES[name] for name in given.family or FAMILIES]
    with tempfile.TemporaryDirectory(prefix="fuzz-") as name:
        folder = Path(name)
        if given.again:
            return _again(FAMILIES[given.again.name.partition("-")[0]], given.again, folder)
        if given.guided:
            return _guided(families[0], given.guided, given.out, folder)
        print(f"seed {given.seed}, {given.cases:,} cases of each family")
        print("| family | " + " | ".join((*GOOD, *BAD)) + " | s |")
        bad = 0
        for family in families:
            began = time.monotonic()
            counts = _run(family, given, folder / family.name)
            bad += sum(counts[kind] for kind in BAD)
            cells = (f"{counts[kind]:,}" for kind in (*GOOD, *BAD))
            print(
                f"| {family.name} | " + " | ".join(cells) + f" | {time.monotonic() - began:.0f} |"
            )
    return int(bad > 0)


def _run(family: Family, given: argparse.Namespace, folder: Path) -> Counter[str]:
    seen: Counter[str] = Counter()

    def told(number: int, case: Case, outcome: Outcome) -> None:
        if outcome.kind not in BAD:
            return
        mark = f"{outcome.kind} {outcome.said.strip().splitlines()[-1:]}"[:200]
        seen[mark] += 1
        if seen[mark] <= 3:  # the same again says nothing more
            kept = keep(shrunk(case, folder, outcome), outcome, given.out)
            print(f"{family.name} {number}: {mark}: {kept}", file=sys.stderr, flush=True)

    numbers = (given.seed, given.start, given.start + given.cases)
    return run(family, folder, numbers, told)


def _again(family: Family, kept: Path, folder: Path) -> int:
    case = again(family, family.bases(folder / "bases"), kept)
    outcome = judge(case, folder / "case")
    print(f"{outcome.kind}: {outcome.said}")
    return int(outcome.kind in BAD)


class _Told(Random):
    """Chance that is told by bytes, so that coverage can steer it."""

    def __init__(self, data: bytes) -> None:
        super().__init__(0)
        self.data, self.place = data, 0

    def random(self) -> float:
        return self.getrandbits(32) / 2**32

    def getrandbits(self, count: int) -> int:
        size = -(-count // 8)
        piece = self.data[self.place : self.place + size].ljust(size, b"\0")
        self.place += size
        return int.from_bytes(piece, "little") >> (8 * size - count)


def _guided(family: Family, seconds: int, out: Path, folder: Path) -> int:
    import atheris

    bases = family.bases(folder / "bases")

    def one(data: bytes) -> None:
        chance = _Told(data)
        steps = tuple(chance.getrandbits(48) for _ in range(1 + chance.getrandbits(2)))
        case = Case(bases[chance.getrandbits(8) % len(bases)], steps, family)
        outcome = judge(case, folder / "case")
        if outcome.kind in BAD:
            raise AssertionError(f"{keep(case, outcome, out)}: {outcome.said}")

    for thing in gc.get_objects():  # all that is imported; torch's paths are not looked for
        if isinstance(thing, FunctionType) and str(thing.__module__).startswith("sparsity_report"):
            atheris.instrument_func(thing)
    atheris.Setup([sys.argv[0], f"-max_total_time={seconds}"], one)
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
