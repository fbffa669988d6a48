"""What a kind of files is to the fuzzer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

# The content of files by their names; None is a folder, a string the target of a link.
Files = dict[str, bytes | str | None]


@dataclass(frozen=True)
class Base:
    """Intact files to begin with.

    Attributes
    ----------
    name : str
    files : Files
    truth : Any
        What the family's judge goes by.
    """

    name: str
    files: Files
    truth: Any = None


@dataclass(frozen=True)
class Family:
    """A kind of files.

    Attributes
    ----------
    name : str
    bases : callable
        Makes the intact files, in a folder that is there for as long as the run takes.
    damage : sequence of callable
        Each changes one thing about some files, in place; one that finds nothing to change leaves
        them as they are.
    judge : callable
        Opens the files in a folder, made from a base. It returns what is wrong, "" for nothing,
        and raises the package's own error where they are refused.
    steps : int
        At most so many changes to a case.
    quick : int
        Cases in every test run.
    seconds : float
        Most seconds of processor time of a case.
    """

    name: str
    bases: Callable[[Path], Sequence[Base]]
    damage: Sequence[Callable[[Random, Files], None]]
    judge: Callable[[Path, Base], str]
    steps: int = 3
    quick: int = 60
    seconds: float = 15


@dataclass(frozen=True)
class Case:
    """One damaged input: a base and the seeds of the changes made to it, one after the other."""

    base: Base
    steps: tuple[int, ...]
    family: Family = field(repr=False)

    def files(self) -> Files:
        """Return the damaged files."""
        files = dict(self.base.files)
        for step in self.steps:
            random = Random(step)
            random.choice(self.family.damage)(random, files)
        return files


def cases(family: Family, bases: Sequence[Base], seed: int, start: int, stop: int) -> list[Case]:
    """Return the cases of a seed with these numbers, each the same in any run."""
    drawn = []
    for number in range(start, stop):
        random = Random(f"{family.name} {seed} {number}")
        steps = tuple(random.getrandbits(48) for _ in range(random.randint(1, family.steps)))
        drawn.append(Case(random.choice(bases), steps, family))
    return drawn


def write(files: Files, folder: Path) -> None:
    """Write files into a new folder; a name that no file can have is left out."""
    folder.mkdir(parents=True)
    for name, content in files.items():
        path = folder / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if content is None:
                path.mkdir()
            elif isinstance(content, str):
                path.symlink_to(content)
            else:
                path.write_bytes(content)
        except (OSError, ValueError):
            continue
