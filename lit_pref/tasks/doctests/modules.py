"""The modules of a package by their names, read as text: an installed one's, a folder's, an archive's or a file's.

Nothing is imported. Not covered: namespace packages of several folders, source in the form of notebooks.
"""

import re
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import packages_distributions
from importlib.util import find_spec
from pathlib import Path, PurePosixPath

from lit_pref.data.source_code.files import SourceFile, source_files
from lit_pref.data.source_code.source_file import RefusedFileError
from lit_pref.data.source_code.text import source_text
from lit_pref.errors import UserError
from lit_pref.syntax.python import Statement, statements

STANDARD_LIBRARY = ("stdlib", "python")
_NOT_OF_IT = frozenset({"test", "tests", "idlelib", "lib2to3", "turtledemo", "ensurepip", "pydoc_data"})
_MAX_BYTES = 2_000_000
_IDLE = re.compile(r"@(t\.|typing\.)?overload\b|\w+\.(register\(\w+\)$|__doc__ = )|if __name__\b")
"""What is for type checkers, abstract classes, readers, or a start as a program."""


@dataclass(frozen=True)
class Module:
    """A module's text. name: its parts; origin: its file; is_package: it is an `__init__.py`."""

    name: tuple[str, ...]
    origin: str
    source: str
    is_package: bool

    @cached_property
    def statements(self) -> list[Statement]:
        """Of its top level, without those that no function needs."""
        return [each for each in statements(self.source) if not _is_idle(each)]

    def defines(self, name: str) -> bool:
        return any(name in each.binds for each in self.statements)


@dataclass
class Modules:
    """The modules that a source holds.

    importable: they are the standard library's, so that programs may import them.
    refused: files that are no module, and why.
    """

    importable: bool = False
    by_name: dict[tuple[str, ...], Module] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)

    def named(self, parts: tuple[str, ...], of: Module, level: int = 0) -> Module | None:
        """What an import statement means: from so many levels up of a module, or absolute; None where it is not here.

        A folder or an archive may hold its package at any depth.
        """
        if level:
            base = of.name if of.is_package else of.name[:-1]
            return self.by_name.get(base[: len(base) - level + 1] + parts)
        if not parts or self.importable:
            return None
        if parts in self.by_name or parts[0] in sys.stdlib_module_names:
            return self.by_name.get(parts)
        found = [each for name, each in self.by_name.items() if name[-len(parts) :] == parts]
        return min(found, key=lambda each: len(each.name), default=None)

    def holder(self, name: str, near: Module) -> Module | None:
        """The module that defines a name which a package gives on from one of its modules; None where several do."""
        if near.defines(name):
            return near
        found = [each for each in self.by_name.values() if name in each.source and _is_defined(name, each)]
        return found[0] if len(found) == 1 else None


def _is_idle(statement: Statement) -> bool:
    return statement.role == "plain" or "__all__" in statement.changes or _IDLE.match(statement.text) is not None


def _is_defined(name: str, module: Module) -> bool:
    return any(name in each.binds and each.kind == "function_definition" for each in module.statements)


def modules_of(source: str) -> Modules:
    """The modules of an installed package ("toolz"), the standard library ("stdlib"), a folder, an archive or a file.

    Raises UserError for what is none of them, or holds no Python.
    """
    path = Path(source).expanduser()
    if source in STANDARD_LIBRARY:
        found, places = Modules(importable=True), list(_library_places())
    elif path.exists():
        root = path.name if (path / "__init__.py").is_file() else ""
        found, places = Modules(), [(path, root)]
    else:
        found, places = _installed(source)
    for place, root in places:
        for file in source_files(place):
            _read(found, file, root)
    if not found.by_name:
        raise UserError(f"{source}: holds no Python module: {found.refused or 'expected files that end in .py'}")
    return found


def _library_places() -> Iterator[tuple[Path, str]]:
    for path in sorted(Path(sysconfig.get_paths()["stdlib"]).iterdir()):
        if path.suffix == ".py" and path.stem in sys.stdlib_module_names:
            yield path, ""
        elif path.name not in _NOT_OF_IT and path.name in sys.stdlib_module_names and (path / "__init__.py").is_file():
            yield path, path.name


def _installed(source: str) -> tuple[Modules, list[tuple[Path, str]]]:
    name = source.replace("-", "_")
    if not all(part.isidentifier() for part in name.split(".")):
        raise UserError(f"{source}: no such file or folder, and no name of a package")
    top, *inner = name.split(".")
    spec = find_spec(top)
    if spec is None:
        of = [each for each, names in packages_distributions().items() if source in names and each.isidentifier()]
        spec = find_spec(top := of[0]) if of else None
    origin = spec.origin if spec is not None else None
    if spec is None or not (spec.submodule_search_locations or (origin and origin.endswith(".py"))):
        what = "is not written in Python" if spec is not None else "is no file or folder, and no installed package"
        raise UserError(
            f"{source} {what}: expected the name of a package that is installed (pip install {source}), a folder, an "
            'archive (.whl, .zip, .tar.gz), a .py file, or "stdlib"'
        )
    path = Path(next(iter(spec.submodule_search_locations or ()), origin or ""))
    path = path.joinpath(*inner)
    if inner and not path.is_dir():
        path = path.with_suffix(".py")
    root = name if path.is_dir() else name.rpartition(".")[0]
    return Modules(importable=top in sys.stdlib_module_names), [(path, root)]


def _read(found: Modules, file: SourceFile, root: str) -> None:
    if file.suffix != ".py":
        return
    path = PurePosixPath(file.origin.partition(":")[2] or file.origin)
    parts = [*(root.split(".") if root else ()), *path.with_suffix("").parts]
    if not root and len(parts) > 1 and not parts[0].isidentifier():
        parts = parts[1:]  # more-itertools-11.0/more_itertools/more.py
    if found.importable and _NOT_OF_IT & set(parts[:-1]):
        return
    is_package = parts[-1] == "__init__"
    name = tuple(parts[:-1] if is_package else parts)
    try:
        if file.content is None:
            raise RefusedFileError(file.reason)
        text = source_text(file.content, ".py", _MAX_BYTES, _MAX_BYTES).decode()
    except RefusedFileError as error:
        if error.reason != "empty":
            found.refused[file.origin] = error.reason
        return
    found.by_name[name] = Module(name, file.origin, text, is_package)
