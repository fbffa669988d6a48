"""Paths of the data that ships with the package."""

from pathlib import Path

_PACKAGE = Path(__file__).parent.parent
#: Folder of the demo model.
DEMO = _PACKAGE / "demo"


def shipped(kind: str) -> list[Path]:
    """Return the folders that may hold the package's ``templates`` or ``notebooks``.

    An installed package holds them itself. A source checkout holds them beside the package.
    """
    checkout = _PACKAGE.parent
    beside = [checkout / kind] if (checkout / "pyproject.toml").is_file() else []
    return [_PACKAGE / kind, *beside]
