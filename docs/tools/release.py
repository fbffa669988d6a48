"""Make a release of the clean checkout: date, commit, tag, build twice, check, install, run.

    python docs/tools/release.py 0.2.0              # commits and tags here; prints what to push
    python docs/tools/release.py 0.2.0 --dry-run    # the same in a temporary clone
    python docs/tools/release.py 0.2.0 --tagged     # builds the tag that is checked out, as CI does

Needs git and ``pip install build twine``. The files end in ``dist/``. Nothing is uploaded.
"""

import argparse
import datetime
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HEADING = "## [{version}] - {date}"


class ReleaseError(Exception):
    """A reason not to release, and what to do."""


def run(*words: str | Path, cwd: Path, **variables: str) -> str:
    """Run a command; return its output."""
    line = [str(word) for word in words]
    environment = {**os.environ, **variables}
    done = subprocess.run(line, cwd=cwd, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise ReleaseError(f"{' '.join(line)}: {(done.stderr or done.stdout).strip()[-2000:]}")
    return done.stdout.strip()


def entry(version: str, changelog: str) -> str:
    """Return the date, or "unreleased", of a version that has an entry with items."""
    pattern = rf"^## \[{re.escape(version)}\] - ([^\n]+)\n(.*?)(?=^## |\Z)"
    match = re.search(pattern, changelog, re.M | re.S)
    if match is None or not re.search(r"^- ", match[2], re.M):
        heading = HEADING.format(version=version, date="unreleased")
        raise ReleaseError(f'CHANGELOG.md: no items of {version}; write "{heading}" and items')
    return match[1]


def check_clean(tree: Path) -> None:
    """Check that nothing is changed and not committed."""
    if changes := run("git", "status", "--porcelain", cwd=tree):
        raise ReleaseError(f"the checkout has changes; commit or remove them:\n{changes}")


def write_date(version: str, date: str, tree: Path) -> None:
    """Put version and date into CHANGELOG.md and CITATION.cff."""
    changelog = tree / "CHANGELOG.md"
    text = changelog.read_text(encoding="utf-8")
    if entry(version, text) != "unreleased":
        raise ReleaseError(f"CHANGELOG.md: version {version} has a date; choose the next version")
    before, after = (HEADING.format(version=version, date=each) for each in ("unreleased", date))
    changelog.write_text(text.replace(before, after), encoding="utf-8")
    citation = tree / "CITATION.cff"
    kept = [
        line
        for line in citation.read_text(encoding="utf-8").splitlines()
        if not line.startswith(("version:", "date-released:"))
    ]
    kept += [f"version: {version}", f"date-released: {date}"]
    citation.write_text("\n".join(kept) + "\n", encoding="utf-8")


def check_dates(version: str, tree: Path) -> None:
    """Check that tag, changelog and citation name this version and one date."""
    tags = run("git", "tag", "--points-at", "HEAD", cwd=tree).split()
    if f"v{version}" not in tags:
        raise ReleaseError(f"HEAD has no tag v{version}; check out the tag")
    date = entry(version, (tree / "CHANGELOG.md").read_text(encoding="utf-8"))
    citation = (tree / "CITATION.cff").read_text(encoding="utf-8").splitlines()
    for line in (f"version: {version}", f"date-released: {date}"):
        if line not in citation:
            raise ReleaseError(f'CITATION.cff: "{line}" is missing; write what CHANGELOG.md says')


def build(version: str, tree: Path, out: Path) -> list[Path]:
    """Build a source distribution and its wheel into `out`, twice; return them if equal."""
    epoch = run("git", "log", "-1", "--format=%ct", cwd=tree)
    digests = []
    for number in (1, 2):
        # Another folder, and files with other times and rights: none of it may reach an archive.
        copy, target = out / f"tree{number}", out / f"built{number}"
        run("git", "clone", "-q", tree, copy, cwd=out)
        run("git", "checkout", "-q", f"v{version}", cwd=copy)
        for path in copy.rglob("*") if number == 2 else ():
            if path.is_file() and ".git" not in path.relative_to(copy).parts:
                path.chmod(path.stat().st_mode & 0o700)
                os.utime(path, (1e9, 1e9))
        run(sys.executable, "-m", "build", "-o", target, cwd=copy, SOURCE_DATE_EPOCH=epoch)
        files = sorted(target.iterdir())
        digests.append({path.name: digest(path) for path in files})
    first, second = digests
    if first != second:
        changed = [name for name in first | second if first.get(name) != second.get(name)]
        raise ReleaseError(f"two builds differ in {', '.join(changed)}; compare them in {out}")
    stem = f"sparsity_report-{version}"
    if set(first) != {f"{stem}.tar.gz", f"{stem}-py3-none-any.whl"}:
        raise ReleaseError(f"built {', '.join(first)}, not version {version}; see the tag")
    return files


def digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def check_contents(wheel: Path) -> None:
    """Check that a wheel has nothing beside the package."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    info = f"{'-'.join(wheel.name.split('-')[:2])}.dist-info"
    strange = {name.partition("/")[0] for name in names} - {"sparsity_report", info}
    if strange:
        raise ReleaseError(f"{wheel.name}: holds {', '.join(sorted(strange))}; see pyproject.toml")


def try_wheel(wheel: Path, version: str, out: Path) -> None:
    """Install a wheel into a new environment and make a report there."""
    venv.create(out / "env", with_pip=True)
    programs = out / "env" / ("Scripts" if os.name == "nt" else "bin")
    run(programs / "python", "-m", "pip", "install", "-q", wheel, cwd=out)
    name = run(programs / "sparsity-report", "--version", cwd=out)
    if name != f"sparsity-report {version}":
        raise ReleaseError(
            f"the installed program calls itself {name}; see sparsity_report/version.py"
        )
    run(programs / "sparsity-report", "run", "--out", out / "results", "--write", "html", cwd=out)
    report = (out / "results" / "report.html").read_text(encoding="utf-8")
    if name not in report:
        raise ReleaseError("report.html does not name its version; see templates/sections")


def release(version: str, tree: Path, *, tagged: bool, install: bool, dist: Path) -> None:
    """Commit and tag unless `tagged`, then build, check and copy the files to `dist`."""
    check_clean(tree)
    if not tagged:
        if run("git", "tag", "--list", f"v{version}", cwd=tree):
            raise ReleaseError(f"tag v{version} exists; choose the next version or use --tagged")
        today = datetime.datetime.now(datetime.UTC).date().isoformat()
        write_date(version, today, tree)
        run("git", "commit", "-qam", f"release: {version}", cwd=tree)
        run("git", "tag", "-a", "-m", f"sparsity-report {version}", f"v{version}", cwd=tree)
        print(f"committed and tagged v{version}, dated {today}")
    check_dates(version, tree)
    with tempfile.TemporaryDirectory(prefix="release-") as folder:
        out = Path(folder)
        files = build(version, tree, out)
        print("two builds are equal, byte for byte")
        run(sys.executable, "-m", "twine", "check", "--strict", *files, cwd=out)
        wheel = next(path for path in files if path.suffix == ".whl")
        check_contents(wheel)
        print("twine finds no fault; the wheel holds the package alone")
        if install:
            try_wheel(wheel, version, out)
            print("installed in a new environment: sparsity-report run wrote report.html")
        dist.mkdir(parents=True, exist_ok=True)
        for path in files:
            shutil.copy(path, dist)
            print(f"{digest(path)}  {dist / path.name}  {path.stat().st_size:,} bytes")


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("version", help="version, such as 0.2.0, without v")
    parser.add_argument("--dry-run", action="store_true", help="work in a temporary clone")
    parser.add_argument("--tagged", action="store_true", help="build the tag that is checked out")
    parser.add_argument("--no-install", action="store_true", help="skip the new environment")
    given = parser.parse_args()
    options = {"tagged": given.tagged, "install": not given.no_install}
    try:
        if not re.fullmatch(r"\d+\.\d+\.\d+((a|b|rc)\d+)?", given.version):
            raise ReleaseError(f"{given.version}: no version; write it as 0.2.0 or 0.2.0rc1")
        if given.dry_run:
            check_clean(ROOT)
            with tempfile.TemporaryDirectory(prefix="dry-run-") as folder:
                clone = Path(folder) / "clone"
                run("git", "clone", "-q", ROOT, clone, cwd=ROOT)
                for key, value in (("user.name", "dry run"), ("user.email", "dry@run.invalid")):
                    run("git", "config", key, value, cwd=clone)
                release(given.version, clone, dist=Path(folder) / "dist", **options)
            print("dry run: nothing was changed here")
            return 0
        release(given.version, ROOT, dist=ROOT / "dist", **options)
    except ReleaseError as error:
        print(f"release: {error}", file=sys.stderr)
        return 1
    if not given.tagged:
        print(f"to publish: git push origin HEAD v{given.version}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
