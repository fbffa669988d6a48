"""One PyTorch archive; ``torch.load`` says which are whole and what they hold."""

from __future__ import annotations

import io
import pickle
import re
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import torch

from fuzz.family import Base, Family, Files
from fuzz.mutators import damage_bytes
from fuzz.truth import count, counted, differs, parameters

NAME = "pytorch_model.bin"
Members = list[tuple[str, bytes]]


def members_of(data: bytes) -> Members:
    """Return names and contents of an archive in their order; none of a damaged one."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return [(member.filename, archive.read(member)) for member in archive.infolist()]
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, EOFError, zlib.error):
        return []


def archived(members: Members, packing: int = zipfile.ZIP_STORED) -> bytes:
    """Write an archive as torch does: contents begin at multiples of 64 and have descriptors."""
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", packing) as archive:
        for name, content in members:
            member = zipfile.ZipInfo(name)
            member.compress_type = packing
            gap = -(written.tell() + 34 + len(name.encode())) % 64
            member.extra = b"FB" + gap.to_bytes(2, "little") + bytes(gap)
            archive.writestr(member, content)
            if content and "/data/" in name:
                written.write(bytes(16))
                archive.start_dir = written.tell()
    return written.getvalue()


def damage_records(random: Random, files: Files) -> None:
    """Cut, lengthen, exchange, double or remove a member, or change its content or name."""
    members = members_of(files[NAME])
    if not members:
        return
    one, other = random.randrange(len(members)), random.randrange(len(members))
    (name, content), kind = members[one], random.randrange(9)
    if kind == 0:
        members[one] = name, content[: random.randrange(len(content) + 1)]
    elif kind == 1:
        members[one] = name, content + bytes(random.choice((1, 4, 64)))
    elif kind == 2:
        members[one], members[other] = members[other], members[one]
    elif kind == 3:
        members[one], members[other] = (name, members[other][1]), (members[other][0], content)
    elif kind == 4:
        members.insert(other, members[one])
    elif kind == 5:
        del members[one]
    elif kind == 6:
        members[one] = random.choice(("x", "", f"{name}x", name.upper(), "a/b\0c")), content
    elif kind == 7:
        members[one] = name, damage_bytes(random, content)
    packing = zipfile.ZIP_DEFLATED if kind == 8 else zipfile.ZIP_STORED
    files[NAME] = archived(members, packing)


def damage_numbers(random: Random, files: Files) -> None:
    """Change small integers of the pickle: sizes, strides, offsets and keys of storages."""
    members = members_of(files[NAME])
    for place in [n for n, (name, _) in enumerate(members) if "pkl" in name]:
        name, content = members[place]
        numbers = [*re.finditer(rb"K.|M..|X\x01\x00\x00\x00\d", content, re.DOTALL)]
        if numbers:
            end = random.choice(numbers).end()
            other = b"%d" % random.randrange(5) if content[end - 2 : end - 1] == b"\0" else None
            digit = other or bytes([random.choice((0, 1, 2, 4, 8, 16, 63, 255))])
            members[place] = name, content[: end - 1] + digit + content[end:]
    files[NAME] = archived(members)


def damage_file(random: Random, files: Files) -> None:
    """Change some bytes of the file, half of the time of its directory."""
    data = files[NAME]
    start = data.rfind(b"PK\1\2", 0, random.randrange(len(data) + 1)) if data else -1
    if start < 0 or random.random() < 0.5:
        files[NAME] = damage_bytes(random, data)
    else:
        files[NAME] = data[:start] + damage_bytes(random, data[start:])


def change_values(random: Random, files: Files) -> None:
    """Make some values of a storage zero."""
    members = members_of(files[NAME])
    storages = [n for n, (name, content) in enumerate(members) if "/data/" in name and content]
    if storages:
        name, content = members[place := random.choice(storages)]
        start = random.randrange(len(content) // 4 + 1) * 4
        zeros = bytes(len(content[start : start + 64]))
        members[place] = name, content[:start] + zeros + content[start + 64 :]
        files[NAME] = archived(members)


def _bases(_: Path) -> list[Base]:
    generator = torch.Generator().manual_seed(0)

    def values(*shape: int) -> torch.Tensor:
        drawn = torch.randn(shape, generator=generator)
        return torch.where(drawn.abs() < 0.4, 0.0, drawn)

    def saved(make: Callable[[], dict[str, Any]]) -> Files:
        torch.save(make(), written := io.BytesIO())
        return {NAME: written.getvalue()}

    def plain() -> dict[str, Any]:
        names = (f"layers.{n}.mlp.up_proj.weight" for n in range(4))
        return {name: values(8, 4) for name in names} | {"norm.weight": torch.ones(4)}

    def views() -> dict[str, Any]:
        whole = values(12, 6)
        rows = {"a.weight": whole[2:8], "b.weight": whole[5:], "c.weight": whole.T}
        return {**rows, "d.weight": torch.nn.Parameter(values(4, 4)), "e.bias": whole[0]}

    def dtypes() -> dict[str, Any]:
        floats = (torch.float64, torch.float16, torch.bfloat16, torch.float8_e4m3fn)
        return {f"layers.{n}.x.weight": values(6, 4).to(dtype) for n, dtype in enumerate(floats)}

    def sparse() -> dict[str, Any]:
        return {
            "a.weight": values(8, 6).to_sparse(), "b.weight": values(8, 6).to_sparse_csr(),
            "c.weight": values(8, 6),
        }  # fmt: skip

    return [Base(make.__name__, saved(make)) for make in (plain, views, dtypes, sparse)]


class _Described(pickle.Unpickler):
    """Tensors of a pickle as the key and dtype of a storage, offset, shape and strides."""

    def find_class(self, module: str, name: str) -> Any:
        if name == "OrderedDict":
            return dict
        if name == "_rebuild_tensor_v2":
            return lambda storage, *view: (*storage, None, *view[:3])
        if name == "_rebuild_tensor_v3":
            return lambda storage, *view: (*storage, view[5], *view[:3])
        if name == "_rebuild_parameter":
            return lambda tensor, *_: tensor
        return getattr(torch if module == "torch" else torch.storage, name)

    def persistent_load(self, named: Any) -> Any:
        return named[2], getattr(named[1], "dtype", torch.uint8)


def by_records(data: bytes) -> dict[str, torch.Tensor]:
    """Return the tensors of an archive whatever size its pickle gives to their storages."""
    members = {name.partition("/")[2]: content for name, content in members_of(data)}
    described = _Described(io.BytesIO(members["data.pkl"])).load()
    return {
        name: torch.frombuffer(bytearray(members[f"data/{key}"]), dtype=other or dtype).as_strided(
            shape, strides, offset
        )
        for name, (key, dtype, other, offset, shape, strides) in described.items()
    }


def _judge(folder: Path, _: Base) -> str:
    answer = counted(folder / NAME, allow_pickle=True)
    try:
        try:
            state = torch.load(folder / NAME, weights_only=True)
        except RuntimeError as error:
            # The pickle announces fewer bytes than the record of a storage has.
            if "record size" not in str(error):
                raise
            state = by_records((folder / NAME).read_bytes())
        dense = {key: tensor.detach().to_dense() for key, tensor in state.items()}
    except Exception as error:  # torch raises many
        return f"torch refuses what is counted as {answer}: {error}"
    return differs(answer, {key: count(part) for key, part in parameters(dense).items()})


PICKLES = Family(
    "pickles", _bases,
    (damage_records, damage_records, damage_numbers, damage_file, damage_file, change_values),
    _judge,
)  # fmt: skip
