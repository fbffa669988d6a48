"""Tests with the lowest and the newest libraries on each Python version, and the site.

``nox`` skips Python versions that are missing. uv takes torch from PyPI, on Linux a CUDA build of
some gigabytes; ``UV_TORCH_BACKEND=cpu`` takes a small one. ``nox -s lowest-3.11 -- tests/weights``
passes arguments to pytest.
"""

import nox

PYTHONS = ["3.11", "3.12", "3.13", "3.14"]

nox.options.default_venv_backend = "uv"


@nox.session(python=PYTHONS)
def lowest(session: nox.Session) -> None:
    """Run the tests with the lowest version of each dependency that has a wheel."""
    _test(session, "lowest-direct")


@nox.session(python=PYTHONS)
def newest(session: nox.Session) -> None:
    """Run the tests with the newest version of each dependency."""
    _test(session, "highest")


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation site with warnings as errors."""
    session.install(".[docs]")
    session.run("sphinx-build", "-W", "docs", "build/docs")


def _test(session: nox.Session, resolution: str) -> None:
    chosen = ("--resolution", resolution, "--only-binary", ":all:")
    session.install(*chosen, "-r", "pyproject.toml", "--extra", "test")
    session.install("--no-deps", ".")
    session.run("uv", "pip", "freeze", external=True)
    session.run("pytest", *session.posargs)
