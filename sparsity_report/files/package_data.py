"""What ships with the package, and where it lies."""

from pathlib import Path

_PACKAGE = Path(__file__).parent.parent
#: Folder of the demo model.
DEMO = _PACKAGE / "demo"


def shipped(kind: str) -> list[Path]:
    """Return where the package's own ``templates`` or ``notebooks`` may lie.

    Installed, they are inside the package; in a source checkout, and only there, beside it.
    """
    checkout = _PACKAGE.parent
    beside = [checkout / kind] if (checkout / "pyproject.toml").is_file() else []
    return [_PACKAGE / kind, *beside]
