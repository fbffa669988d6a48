"""Paths of the data that ships with the package."""

from pathlib import Path

_PACKAGE = Path(__file__).parent.parent
#: Folder of the demo model.
DEMO = _PACKAGE / "demo"


def shipped(name: str) -> list[Path]:
    """Return the paths at which ``templates``, ``notebooks`` or a file of the project may be.

    An installed package holds them itself. A source checkout holds them beside the package.
    """
    checkout = _PACKAGE.parent
    beside = [checkout / name] if (checkout / "pyproject.toml").is_file() else []
    return [_PACKAGE / name, *beside]
