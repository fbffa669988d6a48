"""Fetch a checkpoint from the Hugging Face Hub, or find the copy in the local cache."""

from __future__ import annotations

import re
from pathlib import Path

from sparsity_report.errors import SparsityReportError

_ID = re.compile(r"[A-Za-z0-9_][\w.-]{0,95}(/[\w.-]{1,96})?")
_WEIGHTS = ["model.safetensors", "model.safetensors.index.json", "model-*-of-*.safetensors"]
_AROUND = [
    "config.json",
    "generation_config.json",
    "tokenizer*",
    "special_tokens_map.json",
    "vocab.*",
    "merges.txt",
]
# Hugging Face's bot offers safetensors for repositories that hold pickles only.
_CONVERTER = "SFconvertbot"


def is_hub_id(text: str) -> bool:
    """Whether a text has the form of a Hub model id.

    Examples
    --------
    >>> is_hub_id("facebook/opt-125m"), is_hub_id("gpt2"), is_hub_id("./gpt2"), is_hub_id("a/b/c")
    (True, True, False, False)
    """
    return bool(_ID.fullmatch(text))


def fetch(
    model: str, *, values: bool, revision: str | None = None, allow_pickle: bool = False
) -> tuple[Path, tuple[str, ...]]:
    """Return the folder that holds a Hub model's files, and notes on where they come from.

    Parameters
    ----------
    model : str
        Hub id, e.g. ``"facebook/opt-125m"``.
    values : bool
        Without, only ``config.json`` is fetched, a few kilobytes.
    revision : str, optional
        Branch, tag or commit.
    allow_pickle : bool
        Fetch ``pytorch_model*.bin`` where there are no safetensors.

    Raises
    ------
    SparsityReportError
        When the model does not exist, is gated, or cannot be reached and is not cached.
    """
    if not values:
        return _download(model, revision, ["config.json"]), ()
    folder = _download(model, revision, _WEIGHTS + _AROUND)
    if _has_safetensors(folder):
        return folder, ()
    if reference := _conversion(model) if revision is None else None:
        converted = _download(model, reference, _WEIGHTS + _AROUND)
        if _has_safetensors(converted):
            return converted, (f"weights from {_CONVERTER}'s safetensors, {model}@{reference}",)
    if allow_pickle:
        return _download(model, revision, ["pytorch_model*.bin", *_AROUND]), ()
    raise SparsityReportError(
        f"{model} has no safetensors on the Hub or in the local cache; "
        "its pickles are opened only with allow_pickle=True (--allow-pickle)"
    )


def _has_safetensors(folder: Path) -> bool:
    return any(folder.glob("*.safetensors"))


def _download(model: str, revision: str | None, patterns: list[str]) -> Path:
    from huggingface_hub import errors, snapshot_download

    try:
        return Path(snapshot_download(model, revision=revision, allow_patterns=patterns))
    except errors.GatedRepoError as error:
        raise SparsityReportError(
            f"{model} is gated: accept its terms on its Hub page and run `hf auth login`"
        ) from error
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        what = model if revision is None else f"{model} at revision {revision}"
        raise SparsityReportError(
            f"{what} is neither a local path nor a model on the Hub; "
            "if it is private, run `hf auth login`"
        ) from error
    except Exception as error:  # no network shows as many different exceptions
        raise SparsityReportError(
            f"{model} is not a local path, is not in the local Hub cache, and the Hub cannot be "
            f"reached ({type(error).__name__}); on a connected machine run `hf download {model}`, "
            "or give the path of a local copy"
        ) from error


def _conversion(model: str) -> str | None:
    from huggingface_hub import get_repo_discussions

    try:
        discussions = get_repo_discussions(
            model, author=_CONVERTER, discussion_type="pull_request", discussion_status="open"
        )
        return next((d.git_reference for d in discussions if "safetensors" in d.title), None)
    except Exception:  # offline, or discussions turned off: there is simply no conversion to use
        return None
