"""Rules of the architecture, read from source text: imports, circles, private names, sizes, prints.

A module is passed as text, so that a test can show each rule failing on a small one.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

PACKAGE = "sparsity_report"
# From the top down: a room imports from its own wing and those after it.
WINGS = (
    "__main__", "cli", "api", "report", "viewer", "draw", "findings",
    "measure", "study", "pairing", "counting", "weights", "sparse", "words", "untrusted", "files",
    "errors", "version",
)  # fmt: skip
SHOWING = {
    "anywidget", "ipywidgets", "jinja2", "markupsafe", "typer", "typst", "vl_convert",
}  # fmt: skip
LINES, CLASS_LINES, PARAMETERS = 60, 300, 6
# What namedtuples, torch and transformers offer under such names only.
FOREIGN = {
    "_asdict", "_base", "_buffers", "_cdata", "_embedding_bag", "_fields", "_indices",
    "_init_weights", "_is_all_true", "_local_scalar_dense", "_make", "_model_mapping",
    "_modules", "_nnz", "_parameters", "_python_dispatch", "_replace", "_schema",
    "_unsafe_view", "_validate_sparse_csr_tensor_args", "_values", "_version",
}  # fmt: skip


@dataclass(frozen=True)
class Import:
    """An import of a module, wherever it stands: ``late`` is inside a function or for types."""

    target: str
    line: int
    late: bool
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Module:
    """A module of the package: its dotted name below the package, and its text."""

    name: str
    text: str
    is_package: bool = False

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    @cached_property
    def nodes(self) -> list[tuple[ast.AST, bool]]:
        return list(_with_place(self.tree))

    @property
    def wing(self) -> str:
        return self.name.partition(".")[0]


def read(root: Path) -> list[Module]:
    """Read the modules of a package, its own ``__init__`` left out."""
    modules = []
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        if parts == ("__init__",):
            continue
        is_package = parts[-1] == "__init__"
        name = ".".join(parts[:-1] if is_package else parts)
        modules.append(Module(name, path.read_text(encoding="utf-8"), is_package))
    return modules


def public_names(stub: str) -> dict[str, str]:
    """Return from a stub the module in which each public name stands."""
    imported = (node for node in ast.parse(stub).body if isinstance(node, ast.ImportFrom))
    return {
        alias.name: str(node.module)
        for node in imported
        for alias in node.names
        if alias.name != "__version__"
    }


def _with_place(tree: ast.Module) -> Iterator[tuple[ast.AST, bool]]:
    """Yield every node, and whether it runs late: in a function, or never but for types."""
    todo: list[tuple[ast.AST, bool]] = [(tree, False)]
    while todo:
        node, late = todo.pop()
        yield node, late
        for field, value in ast.iter_fields(node):
            inner = late or (
                isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
                and field == "body"
            )
            typing = (
                isinstance(node, ast.If)
                and field == "body"
                and "TYPE_CHECKING" in ast.dump(node.test)
            )
            children = value if isinstance(value, list) else [value]
            todo += [(c, inner or typing) for c in children if isinstance(c, ast.AST)]


def imports(module: Module, public: Mapping[str, str]) -> Iterator[Import]:
    """Yield all imports of a module, of this package as ``report.page``, of others by full name.

    ``import sparsity_report as sr; sr.load`` and ``import_module("sparsity_report.weights")`` are
    imports of the rooms they open.
    """
    base = module.name.split(".") if module.is_package else module.name.split(".")[:-1]
    aliases: set[str] = set()
    for node, late in module.nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                root, _, rest = alias.name.partition(".")
                if root == PACKAGE:
                    aliases.add(alias.asname if alias.asname and not rest else root)
                yield Import(rest if root == PACKAGE else alias.name, node.lineno, late)
        elif isinstance(node, ast.ImportFrom):
            target = node.module or ""
            if node.level:
                above = base[: len(base) - node.level + 1]
                target = ".".join([PACKAGE, *above, *([target] if target else [])])
            names = tuple(alias.name for alias in node.names)
            if target == PACKAGE:
                yield from (Import(public.get(n, n), node.lineno, late, (n,)) for n in names)
            elif target.startswith(f"{PACKAGE}."):
                yield Import(target.partition(".")[2], node.lineno, late, names)
            else:
                yield Import(target, node.lineno, late, names)
    inner = {id(n.value) for n, _ in module.nodes if isinstance(n, ast.Attribute)}
    for node, late in module.nodes:
        if aliases and isinstance(node, ast.Attribute) and id(node) not in inner:
            root, _, rest = ast.unparse(node).partition(".")
            if root in aliases and rest != "__version__":
                yield Import(public.get(rest.partition(".")[0], rest), node.lineno, late)
        elif isinstance(node, ast.Call) and _called(node) in {"import_module", "__import__"}:
            text = getattr(node.args[0] if node.args else None, "value", None)
            if not isinstance(text, str):
                yield Import("?", node.lineno, late)
                continue
            if text.startswith("."):
                text = ".".join([PACKAGE, *base, text[1:]])
            root, _, rest = text.partition(".")
            yield Import(rest if root == PACKAGE else text, node.lineno, late)


def _called(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def _room(target: str, rooms: Iterable[str]) -> str:
    """Return the room that an import opens: ``words.names``, not ``words.names.clip``."""
    parts = target.split(".")
    heads = (".".join(parts[:size]) for size in range(len(parts), 0, -1))
    return next((head for head in heads if head in rooms), "")


def edges(modules: Iterable[Module], public: Mapping[str, str]) -> dict[tuple[str, str], bool]:
    """Return which module imports which of the package, and whether only ever late."""
    modules = list(modules)
    rooms = {module.name for module in modules}
    packages = {module.name for module in modules if module.is_package}
    found: dict[tuple[str, str], bool] = {}
    for module in modules:
        for each in imports(module, public):
            targets = {_room(each.target, rooms)}
            if targets & packages:
                # What is imported from a wing itself may be one of its rooms.
                targets = {_room(f"{each.target}.{name}", rooms) for name in each.names} or targets
            for target in targets - {"", module.name}:
                found[module.name, target] = found.get((module.name, target), True) and each.late
    return found


def wrong_arrows(modules: Iterable[Module], public: Mapping[str, str]) -> list[str]:
    """Return the imports that point up, late and type-only ones included."""
    return [
        f"{module} imports {target}"
        for module, target in edges(modules, public)
        if _floor(target) < _floor(module)
    ]


def _floor(module: str) -> int:
    return WINGS.index(module.partition(".")[0])


def cycles(modules: Iterable[Module], public: Mapping[str, str]) -> list[str]:
    """Return the modules that import each other, directly or through others, late or not."""
    return _circular(edges(modules, public))


def folder_cycles(modules: Iterable[Module], public: Mapping[str, str]) -> list[str]:
    """Return files and folders of one folder that import each other, each folder as a whole.

    ``study.derived`` and ``study.frames`` import each other if a file of ``study.derived`` imports
    ``study.frames``, and ``study.frames`` imports another file of ``study.derived``.
    """
    arrows = set()
    for module, target in edges(modules, public):
        one, other = module.split("."), target.split(".")
        shared = 0
        while shared < min(len(one), len(other)) and one[shared] == other[shared]:
            shared += 1
        if 0 < shared < min(len(one), len(other)):
            arrows.add((".".join(one[: shared + 1]), ".".join(other[: shared + 1])))
    return _circular(arrows)


def _circular(arrows: Iterable[tuple[str, str]]) -> list[str]:
    """Return the nodes from which arrows lead back to themselves."""
    below: dict[str, set[str]] = {}
    for start, target in arrows:
        below.setdefault(start, set()).add(target)
    reached: dict[str, set[str]] = {}
    for start in below:
        todo, seen = list(below[start]), set()
        while todo:
            if (node := todo.pop()) not in seen:
                seen.add(node)
                todo += below.get(node, ())
        reached[start] = seen
    return sorted(start for start, seen in reached.items() if start in seen)


def crowded(modules: Iterable[Module], limit: int = 20) -> list[str]:
    """Return the folders that hold more modules than the limit, ``__init__`` not counted."""
    folders = Counter(m.name.rpartition(".")[0] for m in modules if not m.is_package)
    return [f"{folder}: {count} modules" for folder, count in folders.items() if count > limit]


def repeated_names(modules: Iterable[Module]) -> dict[str, list[str]]:
    """Return the file names that several modules share, with the modules."""
    names: dict[str, list[str]] = {}
    for module in modules:
        if not module.is_package:
            names.setdefault(module.name.rpartition(".")[2], []).append(module.name)
    return {name: places for name, places in names.items() if len(places) > 1}


def unreadable_imports(modules: Iterable[Module], public: Mapping[str, str]) -> list[str]:
    """Name imports of a module whose name is made while running."""
    return [
        f"{module.name}, line {each.line}"
        for module in modules
        for each in imports(module, public)
        if each.target == "?"
    ]


def private_crossings(module: Module) -> list[str]:
    """Name private names of other modules: imported, or reached into with a dot."""
    # Names this module gives itself: functions, classes, fields, attributes it sets.
    given = set()
    for node in ast.walk(module.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            given.add(node.name)
        elif isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store):
            given.add(node.id if isinstance(node, ast.Name) else node.attr)
    # A class with a base may use what it inherits.
    inherited = {
        id(node)
        for each in ast.walk(module.tree)
        if isinstance(each, ast.ClassDef) and each.bases
        for node in ast.walk(each)
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) in {"self", "super()"}
    }
    said = []
    for node in ast.walk(module.tree):
        if isinstance(node, ast.ImportFrom):
            names = [alias.name for alias in node.names]
            names += [part for part in (node.module or "").split(".") if part not in FOREIGN]
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
            is_free = node.attr in given | FOREIGN or id(node) in inherited
            names = [] if is_free else [node.attr]
        else:
            continue
        said += [
            f"{module.name}, line {node.lineno}: {name}"
            for name in names
            if name.startswith("_") and not name.startswith("__")
        ]
    return said


def _code_lines(module: Module) -> set[int]:
    """Return the lines that are neither blank, comment nor docstring."""
    documented: set[int] = set()
    for node in ast.walk(module.tree):
        if isinstance(
            node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
        ) and (ast.get_docstring(node, clean=False) is not None):
            text = node.body[0]
            documented |= set(range(text.lineno, (text.end_lineno or text.lineno) + 1))
    lines = enumerate(module.text.splitlines(), 1)
    code = {n for n, line in lines if line.strip() and not line.strip().startswith("#")}
    return code - documented


def too_large(module: Module) -> list[str]:
    """Name functions, classes and signatures over their limits."""
    code = _code_lines(module)
    said = []
    for node in ast.walk(module.tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        size = len(code & set(range(node.lineno, (node.end_lineno or node.lineno) + 1)))
        is_class = isinstance(node, ast.ClassDef)
        if size > (CLASS_LINES if is_class else LINES):
            said.append(f"{module.name}.{node.name}: {size} lines")
        if not isinstance(node, ast.ClassDef):
            named = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            taken = [each.arg for each in named if each.arg not in {"self", "cls"}]
            if len(taken) > PARAMETERS:
                said.append(f"{module.name}.{node.name}: {len(taken)} parameters")
    return said


def untyped(modules: Iterable[Module], public: Mapping[str, str]) -> list[str]:
    """Name what other wings call though its signature says `Any`, except for records by name."""
    used = {(module, name) for name, module in public.items()}
    for module in modules:
        for each in imports(module, public):
            if each.target.partition(".")[0] != module.wing:
                used |= {(each.target, name) for name in each.names}
    return [
        f"{module.name}.{node.name}"
        for module in modules
        for top in module.tree.body
        if (module.name, getattr(top, "name", "")) in used
        for node in (top, *(top.body if isinstance(top, ast.ClassDef) else ()))
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_") and _says_any(node)
    ]


def _says_any(function: ast.FunctionDef) -> bool:
    given = [each.annotation for each in ast.walk(function.args) if isinstance(each, ast.arg)]
    texts = [ast.unparse(each) for each in (*given, function.returns) if each]
    return any("Any" in re.sub(r"(dict|Mapping)\[str, Any\]", "", text) for text in texts)


def showing(module: Module, public: Mapping[str, str]) -> list[str]:
    """Name what shows things: libraries for it, and prints."""
    said = [
        f"{module.name} imports {each.target}"
        for each in imports(module, public)
        if each.target.partition(".")[0] in SHOWING
    ]
    return said + prints(module)


def prints(module: Module) -> list[str]:
    """Name the lines that print."""
    return [
        f"{module.name}, line {node.lineno} prints"
        for node in ast.walk(module.tree)
        if (isinstance(node, ast.Call) and _called(node) == "print")
        or (isinstance(node, ast.Attribute) and node.attr in {"stdout", "stderr"})
    ]
