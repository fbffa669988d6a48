"""A GGUF model as its headers describe it: its shards, their metadata, and tensors by name."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from sparsity_report.errors import SparsityReportError
from sparsity_report.weights.gguf.gguf_header import (
    BlockSlice,
    Header,
    Metadata,
    read_header,
)
from sparsity_report.weights.tensor_slices import Entry

#: Headers of the shards of a model, in order.
Headers = Mapping[Path, Header]
# Models in shards, as llama.cpp names them.
_SHARD = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")


def shard_names(name: str) -> list[str]:
    """Return the names of all shards of the model that a file belongs to, in order.

    Examples
    --------
    >>> shard_names("x-00002-of-00002.gguf"), shard_names("x.gguf")
    (['x-00001-of-00002.gguf', 'x-00002-of-00002.gguf'], ['x.gguf'])
    """
    match = _SHARD.fullmatch(name)
    if match is None or not 1 <= int(match["number"]) <= int(match["count"]):
        return [name]
    total = int(match["count"])
    return [f"{match['stem']}-{number:05}-of-{total:05}.gguf" for number in range(1, total + 1)]


def model_names(names: Iterable[str]) -> list[str]:
    """Return the name of the first shard of each GGUF model among files, present or not.

    Examples
    --------
    >>> model_names(["b.gguf", "a-00002-of-00002.gguf", "a-00001-of-00002.gguf", "a.txt"])
    ['a-00001-of-00002.gguf', 'b.gguf']
    """
    return sorted({shard_names(name)[0] for name in names if name.endswith(".gguf")})


def unsharded_name(name: str) -> str:
    """Return the name that the file of a model would have without shards.

    Examples
    --------
    >>> unsharded_name("x-00002-of-00003.gguf")
    'x.gguf'
    """
    return name if len(shard_names(name)) == 1 else _SHARD.sub(r"\g<stem>.gguf", name)


def read_model(headers: Headers) -> tuple[Path, Metadata, dict[str, Entry]]:
    """Return the first shard of a model, its metadata, and the tensors of all shards.

    Parameters
    ----------
    headers : mapping
        Headers of all shards in order.

    Raises
    ------
    SparsityReportError
        A shard is missing, or shards belong to different models.
    """
    first, *_ = headers
    metadata, _ = headers[first]
    entries: dict[str, Entry] = {}
    for number, (file, (claims, tensors)) in enumerate(headers.items()):
        _check_claims(file, claims, number, len(headers))
        for key in ("split.tensors.count", "general.architecture"):
            if claims.get(key, metadata.get(key)) != metadata.get(key):
                raise SparsityReportError(
                    f"{file}: {key} is {claims[key]} but {metadata.get(key)} in {first.name}, so "
                    "they are shards of two models; download all shards of one again"
                )
        if repeated := sorted(entries.keys() & tensors):
            raise SparsityReportError(
                f"{file}: tensor {repeated[0]!r} is in {entries[repeated[0]].origin} too, so they "
                "are shards of two models; download all shards of one again"
            )
        entries |= tensors
    if len(headers) > 1 and len(entries) != metadata.get("split.tensors.count"):
        raise SparsityReportError(
            f"{first}: its shards hold {len(entries)} tensors, but split.tensors.count is "
            f"{metadata.get('split.tensors.count')}; download all shards again"
        )
    _check_scales(first, entries)
    return first, metadata, entries


def read_headers(path: Path) -> Headers:
    """Return the headers of all shards of the model that a file belongs to."""
    files = [path.with_name(name) for name in shard_names(path.name)]
    if missing := [file.name for file in files if not file.is_file()]:
        raise SparsityReportError(
            f"{path.with_name(unsharded_name(path.name))} is in {len(files)} shards, and "
            f"{len(missing)} of them are missing, first {missing[0]}; download all into one folder"
        )
    return {file: read_header(file) for file in files}


def _check_claims(file: Path, claims: Metadata, number: int, count: int) -> None:
    """Refuse a file whose header and name disagree on the shard."""
    claimed_number, claimed_count = claims.get("split.no", 0), claims.get("split.count", 1)
    if (claimed_number, claimed_count) == (number, count):
        return
    if count == 1:
        raise SparsityReportError(
            f"{file} is one of {claimed_count} shards of a model; give each the name that "
            "llama.cpp gives it, such as name-00001-of-00003.gguf, and put all into one folder"
        )
    raise SparsityReportError(
        f"{file}: split.no is {claimed_number} and split.count {claimed_count}, but its name "
        f"means {number} and {count}; download it again, or give it its original name"
    )


def _check_scales(path: Path, entries: Mapping[str, Entry]) -> None:
    """Refuse blocks with a separate tensor of scales, as NVFP4 and BitNet may have."""
    for key in entries:
        weight = entries.get(f"{key.removesuffix('.scale')}.weight")
        if key.endswith(".scale") and weight and isinstance(weight.values, BlockSlice):
            raise SparsityReportError(
                f"{path}: {key!r} multiplies the blocks ({weight.values.block_type}) of "
                f"{weight.key!r}, which is not supported; give a file of another type"
            )
