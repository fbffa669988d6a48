"""Metadata of a model beside its weights: the model card, and what the Hub shows."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from sparsity_report.untrusted.gates import open_file
from sparsity_report.weights.sources.http_ranges import HubFile
from sparsity_report.weights.tensor_slices import Origin

# Bytes of a model card that are read; metadata comes first.
_READ = 2**20
# Seconds to wait for the Hub.
_TIMEOUT = 10.0


def front_matter(folder: Path) -> dict[str, Any]:
    """Return the metadata of a local model card; empty where it cannot be read."""
    with suppress(Exception), open_file(folder / "README.md") as card:  # YAML raises many
        text = card.read(_READ).decode("utf-8", "replace")
        if text.startswith("---\n"):
            import yaml

            metadata = yaml.safe_load(text.removeprefix("---\n").partition("\n---")[0])
            return metadata if isinstance(metadata, dict) else {}
    return {}


def hub_total(file: Origin) -> int | None:
    """Return the parameters that the Hub shows for a model; None where it shows none."""
    if not isinstance(file, HubFile):
        return None
    from huggingface_hub import get_session
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

    url = f"{file.endpoint}/api/models/{file.model}/revision/{file.commit}"
    fields, headers = {"expand": ["safetensors"]}, build_hf_headers()
    with suppress(Exception):  # HTTP clients raise many; a missing claim is no error
        page: Any = get_session().get(url, params=fields, headers=headers, timeout=_TIMEOUT).json()
        total = page["safetensors"]["total"]
        return total if type(total) is int else None
    return None
