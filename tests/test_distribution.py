"""What is built from this tree: its version, its contents and what it declares."""

import ast
import email
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from importlib import metadata, util
from pathlib import Path

import pytest
import yaml
from helpers import need

import sparsity_report as sr
from sparsity_report.report.study_sections import bibtex

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
# Extras of those who work on the package.
INTERNAL = {"docs", "lint", "test", "tools"}
# The standard library of Python 3.14.
STANDARD = {*sys.stdlib_module_names, "compression"}


def name_of(requirement):
    """The normalized name in a requirement."""
    return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", requirement)[0]).lower()


def listed():
    """Names of the files that git knows; in an unpacked archive, of all files."""
    names = []
    if shutil.which("git"):
        line = ["git", "ls-files", "-z"]
        done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True)
        names = done.stdout.split("\0")[:-1]
    held = {path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*")} - {"PKG-INFO"}
    return names or [name for name in held if not re.search(r"(_cache|_*pycache_*)/", name)]


def tracked():
    """Texts of the project, as paths and contents."""
    kinds = {
        ".py", ".pyi", ".md", ".toml", ".json", ".yml", ".yaml", ".cff", ".ipynb", ".j2", ".js",
    }  # fmt: skip
    for name in listed():
        if Path(name).suffix in kinds and (ROOT / name).is_file():
            yield Path(name), (ROOT / name).read_text(encoding="utf-8", errors="replace")


def imports():
    """Yield path and dotted name of all imports of the package."""
    for path in sorted((ROOT / "sparsity_report").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                yield from ((path.relative_to(ROOT), alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and not node.level:
                yield from ((path.relative_to(ROOT), f"{node.module}.{a.name}") for a in node.names)


def distributions(name, index):
    """Normalized names of the distributions that may hold an imported module."""
    root = name.partition(".")[0]
    return {name_of(each) for each in index.get(root, [root])} | {name_of(root)}


def test_every_import_is_declared():
    """As a dependency, or by an extra for users."""
    index = metadata.packages_distributions()
    needed = {name_of(each) for each in PROJECT["dependencies"]}
    extras = PROJECT["optional-dependencies"].items()
    optional = {name_of(each) for name, extra in extras for each in extra if name not in INTERNAL}
    used = set()
    for path, name in imports():
        if name.partition(".")[0] not in STANDARD | {"sparsity_report"}:
            candidates = distributions(name, index)
            assert candidates & (needed | optional), f"{path}: {name} is not declared"
            used |= candidates
    assert needed <= used, f"declared and never imported: {needed - used}"


@pytest.fixture(scope="module")
def hatch():
    """Run hatchling with arguments."""
    need(util.find_spec("hatchling") and util.find_spec("hatch_vcs"), "hatchling and hatch-vcs")

    def run(*arguments, cwd):
        line = [sys.executable, "-m", "hatchling", *map(str, arguments)]
        done = subprocess.run(line, cwd=cwd, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]

    return run


def version_of(folder):
    """The version that a build in a folder gets."""
    need(util.find_spec("hatch_vcs"), "hatch-vcs")
    from hatch_vcs.version_source import VCSVersionSource

    table = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))
    return VCSVersionSource(str(folder), table["tool"]["hatch"]["version"]).get_version_data()[
        "version"
    ]


def git(folder, *arguments):
    need(shutil.which("git") is not None, "git")
    identity = ("-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "init.defaultBranch=main")
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def tree(tmp_path):
    """A folder with what states the version, in no repository."""
    folder = tmp_path / "tree"
    folder.mkdir()
    for name in ("pyproject.toml", ".git_archival.txt", ".gitattributes"):
        (folder / name).write_bytes((ROOT / name).read_bytes())
    return folder


@pytest.mark.tools
@pytest.mark.filterwarnings("ignore")
def test_version_without_tags(tree):
    assert version_of(tree) == "0+unknown"
    git(tree, "init")
    git(tree, "add", ".")
    git(tree, "commit", "-m", "x")
    assert re.fullmatch(r"0\.post1\.dev1\+unknown\.g\w+", version_of(tree))
    # A source folder inside somebody's repository has not that repository's version.
    outer = tree.parent
    (tree / ".git").rename(outer / "moved")
    git(outer, "init")
    git(outer, "add", "tree")
    git(outer, "commit", "-m", "x")
    git(outer, "tag", "-m", "x", "v9.9")
    assert version_of(tree) == "0+unknown"


@pytest.mark.tools
@pytest.mark.filterwarnings("ignore")
def test_version_of_a_tag_and_after_it(tree, monkeypatch):
    git(tree, "init")
    git(tree, "add", ".")
    git(tree, "commit", "-m", "x")
    git(tree, "tag", "-m", "x", "v3.1.4")
    assert version_of(tree) == "3.1.4"
    with monkeypatch.context() as patch:
        patch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
        assert version_of(tree) in {"3.1.4", "0+unknown"}
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(tree))
        assert version_of(tree) == "0+unknown"
    git(tree, "archive", "--prefix=archive/", "-o", "../archive.tar", "HEAD")
    with tarfile.open(tree.parent / "archive.tar") as archive:
        archive.extractall(tree.parent, filter="data")
    assert version_of(tree.parent / "archive") == "3.1.4"
    git(tree, "commit", "--allow-empty", "-m", "y")
    assert re.fullmatch(r"3\.1\.4\.post1\.dev1\+g\w+", version_of(tree))


def test_code_from_a_source_tree_has_no_installed_version(tmp_path):
    """Neither without metadata nor with those of another copy."""
    for version in (None, "7.8.9"):
        if version is not None:
            info = tmp_path / "sparsity_report-7.8.9.dist-info"
            info.mkdir()
            (info / "METADATA").write_text("Metadata-Version: 2.4\nName: sparsity-report\n"
                                           "Version: 7.8.9\n", encoding="utf-8")  # fmt: skip
        script = (
            f"import sys; sys.path[:] = {[str(tmp_path), str(ROOT)]} + "
            "[each for each in sys.path if 'site-packages' not in each]\n"
            "from importlib.util import module_from_spec, spec_from_file_location\n"
            f"spec = spec_from_file_location('v', {str(ROOT / 'sparsity_report/version.py')!r})\n"
            "module = module_from_spec(spec)\nspec.loader.exec_module(module)\n"
            "print(module.__version__)"
        )
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
        assert done.stdout == "0+source\n", done.stderr
    copy = tmp_path / "sparsity_report" / "version.py"
    copy.parent.mkdir()
    copy.write_bytes((ROOT / "sparsity_report/version.py").read_bytes())
    script = script.replace(repr(str(ROOT / "sparsity_report/version.py")), repr(str(copy)))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "7.8.9\n", done.stderr


@pytest.fixture(scope="module")
def built(hatch, tmp_path_factory):
    """The source distribution, and a wheel from the tree and from that distribution."""
    folder = tmp_path_factory.mktemp("built")
    hatch("build", "-t", "sdist", "-d", folder / "one", cwd=ROOT)
    hatch("build", "-t", "wheel", "-d", folder / "one", cwd=ROOT)
    (sdist,) = (folder / "one").glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    source = folder / sdist.name.removesuffix(".tar.gz")
    hatch("build", "-t", "wheel", "-d", folder / "two", cwd=source)
    (one,), (two,) = (folder / "one").glob("*.whl"), (folder / "two").glob("*.whl")
    return source, one, two


@pytest.mark.tools
def test_the_source_distribution_builds_the_same_wheel(built):
    source, one, two = built
    assert one.name == two.name
    assert one.read_bytes() == two.read_bytes()
    known = [name for name in listed() if (ROOT / name).is_file()]
    assert {"docs/conf.py", "tests/test_distribution.py"} <= set(known)
    changed = [name for name in known if (source / name).read_bytes() != (ROOT / name).read_bytes()]
    assert changed == []


@pytest.mark.tools
def test_the_wheel_holds_the_package_and_its_data_alone(built):
    with zipfile.ZipFile(built[1]) as wheel:
        names = set(wheel.namelist())
        info = next(name.partition("/")[0] for name in names if name.endswith("/METADATA"))
        text = wheel.read(f"{info}/METADATA").decode()
    assert {name.partition("/")[0] for name in names} == {"sparsity_report", info}
    for folder in ("templates", "notebooks"):
        held = [path for path in (ROOT / folder).rglob("*") if path.is_file()]
        held = {path for path in held if path.suffix != ".pyc" and ".ipynb_" not in str(path)}
        assert {f"sparsity_report/{path.relative_to(ROOT).as_posix()}" for path in held} <= names
    assert {f"sparsity_report/{name}" for name in ("demo/model.safetensors", "py.typed",
            "CITATION.cff", "__init__.pyi", "viewer/bundle/viewer.js",
            "viewer/widget.js")} <= names  # fmt: skip
    assert not [name for name in names if re.search(r"(^|/)(tests?/|test_|conftest)", name)]
    parsed = email.message_from_string(text)
    assert parsed["License-Expression"] == PROJECT["license"]
    licenses = {f"{info}/licenses/{name}" for name in PROJECT["license-files"]}
    assert licenses <= names
    assert parsed["Description-Content-Type"] == "text/markdown"
    assert set(parsed.get_all("Provides-Extra")) == set(PROJECT["optional-dependencies"])
    assert parsed.get_all("Project-URL") is None


def test_citation_and_reports_agree(demo_study):
    entry = dict(re.findall(r"^  (\w+) += \{(.*)\},?$", "\n".join(bibtex(demo_study)), re.M))
    assert re.sub(r"[{}]", "", entry["title"]) == CITATION["title"]
    (author,) = CITATION["authors"]
    assert entry["author"] == f"{{{author['name']}}}"
    assert PROJECT["authors"] == [author]
    assert entry["howpublished"] == f"Python package, version {sr.__version__}"
    released = CITATION.get("date-released")
    assert entry.get("year") == (released and str(released.year))
    assert ("version" in CITATION) == bool(released)
    assert {"cff-version", "message", "title", "authors"} <= set(CITATION)
    assert CITATION["license"] in PROJECT["license"]


def test_no_hint_names_an_extra_of_an_index():
    """An index may serve another package by our name; hints name the library that is missing."""
    for path, text in tracked():
        if path != Path(__file__).relative_to(ROOT):
            assert not re.findall(r"sparsity[-_]report\[\w+\]", text), path
        if path.parts[0] in {"docs", "sparsity_report", "templates", "notebooks"}:
            # After an installation there is no folder to install an extra from.
            assert "clone" in text or not re.findall(r"'\.\[\w+\]'", text), path


def test_no_text_names_an_address_of_the_project():
    """Neither its site nor its repository has one; identifiers of schemas are not addresses."""
    address = re.compile(r"https?://[\w.]*git(?:hub|lab)\.\w+/[\w.-]+/sparsity-report\b"
                         r"|https?://sparsity-report\.[\w.]+")  # fmt: skip
    assert "urls" not in PROJECT
    for path, text in tracked():
        if path.parent.name != "schemas" and path.name != "json_schema.py":
            assert address.findall(text) == [], path


def test_readme_cites_by_the_entry_of_reports(demo_study):
    """Without version and fingerprints, which depend on the report."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```bibtex\n(.*?)```", readme, re.S)
    lines = {line.rstrip(",") for line in block.splitlines()}
    entry = {line.rstrip(",") for line in bibtex(demo_study)}
    fields = {line.split()[0] for line in lines if "=" in line}
    assert fields == {"author", "title", "year"}
    assert {line for line in lines - entry if "year" not in line} == set()
    if released := CITATION.get("date-released"):
        assert f"  year         = {{{released.year}}}" in lines


def test_workflows_are_pinned_and_may_do_little():
    for path in (ROOT / ".github/workflows").glob("*.yml"):
        text = path.read_text(encoding="utf-8")
        workflow = yaml.safe_load(text)
        for action in re.findall(r"uses: (\S+)", text):
            assert action.startswith("./") or re.search(r"@[0-9a-f]{40}$", action), action
        assert workflow["permissions"] in ({}, {"contents": "read"}), path.name
        for job in workflow["jobs"].values():
            extra = {scope for scope, level in job.get("permissions", {}).items()
                     if level == "write"}  # fmt: skip
            assert extra <= {"id-token", "attestations"}
        assert "secrets." not in text


@pytest.mark.tools
def test_the_extra_for_the_site_has_its_extensions():
    tree = ast.parse((ROOT / "docs/conf.py").read_text(encoding="utf-8"))
    (names,) = (
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "extensions"
    )
    index = metadata.packages_distributions()
    declared = {name_of(each) for each in PROJECT["optional-dependencies"]["docs"]}
    local = {path.stem for path in (ROOT / "docs/_ext").glob("*.py")}
    assert len(names) > len(local)
    for name in set(names) - local:
        assert distributions(name, index) & declared, name
