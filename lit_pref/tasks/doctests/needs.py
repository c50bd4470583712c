"""What some code needs of a package, as source that stands alone: definitions of its modules, and library imports.

A name that a module imports from another one of its package is taken from there, and `module.name` becomes `name`.
Not covered: names that two modules define differently, modules used as objects, `import *` of more than one module.
"""

import ast
import sys
import typing
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from lit_pref.syntax.names import IMPORTS
from lit_pref.syntax.needed import needed
from lit_pref.syntax.python import Statement
from lit_pref.tasks.doctests.modules import Module, Modules


class UnfitError(Exception):
    """A function that makes no problem; `reason` is what it is counted under."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(detail or reason)
        self.reason = reason


OTHER_PACKAGES = "needs other packages than the standard library"
OTHER_MODULES = "needs its package in a way that cannot be copied"


def parsed(source: str) -> ast.Module:
    """Raises UnfitError for what is no Python of this interpreter."""
    try:
        with warnings.catch_warnings(action="ignore"):  # of "\\d" and the like, which nobody here can mend
            return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise UnfitError("broken syntax", str(error)) from error


class _Imported(NamedTuple):
    """`from module import imported as name`; without `imported`, `import module as name`."""

    module: str
    imported: str
    name: str


def _parameters(tree: ast.Module) -> set[str]:
    return {each.arg for each in ast.walk(tree) if isinstance(each, ast.arg)}


@dataclass
class Needs:
    """Collects statements and imports; each name has one meaning."""

    modules: Modules
    left_out: tuple[Module, str] | None = None  # a function that is not among them
    statements: list[str] = field(default_factory=list)
    _seen: set[tuple[tuple[str, ...], int]] = field(default_factory=set)
    _meaning: dict[str, str] = field(default_factory=dict)
    _imports: set[_Imported] = field(default_factory=set)
    _borrowed: set[tuple[tuple[str, ...], str]] = field(default_factory=set)
    _future: bool = False

    def imports(self, names: Iterable[str] | None = None, but: bool = False) -> str:
        """Import statements, one a line: all, or those that bind one of the names; with `but`, the others."""
        chosen = set(self._meaning if names is None else names)
        lines = ["from __future__ import annotations"] if self._future and not but else []
        given = dict[str, list[str]]()
        for module, imported, name in sorted(self._imports, key=lambda each: (each.imported != "", each)):
            if (name in chosen) == but:
                continue
            if imported:
                given.setdefault(module, []).append(imported + (f" as {name}" if name != imported else ""))
            else:
                lines.append(f"import {module}" + (f" as {name}" if name != module.partition(".")[0] else ""))
        lines += [f"from {module} import {', '.join(several)}" for module, several in given.items()]
        return "".join(f"{line}\n" for line in lines)

    def add(self, module: Module, names: Iterable[str], entry_point: str = "") -> None:
        """What gives the names their values in a module. Raises UnfitError."""
        pool, wanted = module.statements, set(names)
        chosen = needed(pool, frozenset(wanted), entry_point)
        wanted |= {name for index in chosen for name in pool[index].uses}
        aliases = dict[str, Module]()
        imports = [index for index in chosen if pool[index].kind in IMPORTS]
        for index in imports:  # of several calls each may want other names of one statement
            aliases |= self._import(module, parsed(pool[index].text).body[0], wanted)
        if any(each.kind == "future_import_statement" and "annotations" in each.text for each in pool):
            self._future = True
        for index in chosen:
            if pool[index].kind not in IMPORTS and (module.name, index) not in self._seen:
                self._seen.add((module.name, index))
                self._take(module, pool[index], aliases)

    def _take(self, module: Module, statement: Statement, aliases: dict[str, Module]) -> None:
        if self.left_out is not None and module is self.left_out[0] and self.left_out[1] in statement.binds:
            return
        text = self.rewritten(statement.text, aliases)
        if text in self.statements:  # as type variables stand in several modules
            return
        for name in statement.binds:
            self._mean(name, ".".join(module.name))
        self.statements.append(text)

    def rewritten(self, text: str, aliases: dict[str, Module]) -> str:
        """`module.name` as `name`, of modules of the package; what these names need is taken too."""
        used = {alias: module for alias, module in aliases.items() if alias in text}
        if not used:
            return text
        lines, cuts = text.split("\n"), list[tuple[int, int, int]]()
        tree = parsed(text)
        attributes = [each for each in ast.walk(tree) if isinstance(each, ast.Attribute)]
        known = [each for each in attributes if isinstance(each.value, ast.Name) and each.value.id in used]
        names = [each for each in ast.walk(tree) if isinstance(each, ast.Name)]
        bound = {each.id for each in names if isinstance(each.ctx, ast.Store)} | _parameters(tree)
        if sum(each.id in used for each in names) != len(known) or bound & {each.attr for each in known}:
            raise UnfitError(OTHER_MODULES)
        for each in known:
            assert isinstance(each.value, ast.Name)
            if each.lineno != each.end_lineno or each.end_col_offset is None:
                raise UnfitError(OTHER_MODULES)
            cuts.append((each.lineno - 1, each.col_offset, each.end_col_offset - len(each.attr.encode())))
            self.borrow(used[each.value.id], each.attr)
        for line, start, end in sorted(cuts, reverse=True):
            raw = lines[line].encode()
            lines[line] = (raw[:start] + raw[end:]).decode()
        return "\n".join(lines)

    def borrow(self, module: Module, name: str) -> None:
        """A name of a module, which may have it from another one. Raises UnfitError where nobody defines it."""
        holder = self.modules.holder(name, module)
        if holder is None:
            raise UnfitError(OTHER_MODULES, f"{name} of {'.'.join(module.name)} is not found, or in several modules")
        if (holder.name, name) not in self._borrowed:  # modules may import from each other
            self._borrowed.add((holder.name, name))
            self.add(holder, {name})

    def aliases(self, module: Module, names: Iterable[str]) -> dict[str, Module]:
        """Those of the names that mean modules of the package in a module."""
        found, wanted = dict[str, Module](), set(names)
        for each in module.statements:
            if each.kind in IMPORTS and each.binds & wanted:
                found |= self._import(module, parsed(each.text).body[0], wanted)
        return found

    def _import(self, module: Module, node: ast.stmt, wanted: set[str]) -> dict[str, Module]:
        aliases = dict[str, Module]()
        if isinstance(node, ast.Import):
            for each in node.names:
                name = each.asname or each.name.partition(".")[0]
                own = self.modules.named(tuple(each.name.split(".")), module)
                if name not in wanted:
                    continue
                if own is None:
                    self._import_name(_Imported(each.name, "", name))
                elif each.asname or "." not in each.name:
                    aliases[name] = own
                else:
                    raise UnfitError(OTHER_MODULES)
        elif isinstance(node, ast.ImportFrom) and node.module != "__future__":
            for each in node.names:
                if each.name == "*":
                    self._import_all(module, node, wanted)
                elif (each.asname or each.name) in wanted:
                    aliases |= self._import_one(module, node, each)
        return aliases

    def _import_one(self, module: Module, node: ast.ImportFrom, each: ast.alias) -> dict[str, Module]:
        name, parts = each.asname or each.name, tuple(node.module.split(".")) if node.module else ()
        inner = self.modules.named((*parts, each.name), module, node.level)
        own = self.modules.named(parts, module, node.level)
        if self.modules.importable or (own is None and inner is None and not node.level):
            self._import_name(_Imported(self._absolute(module, node), each.name, name))
        elif inner is not None and (own is None or not own.defines(each.name)):
            return {name: inner}
        elif own is None:
            raise UnfitError(OTHER_MODULES)
        else:
            self.borrow(own, each.name)
            given = f"{name} = {each.name}"
            if each.asname and given not in self.statements:
                self._mean(name, f"{'.'.join(own.name)}.{each.name}")
                self.statements.append(given)
        return {}

    def _import_all(self, module: Module, node: ast.ImportFrom, wanted: set[str]) -> None:
        own = self.modules.named(tuple(node.module.split(".")) if node.module else (), module, node.level)
        if own is None:
            self._import_name(_Imported(self._absolute(module, node), "*", "*"))
        else:
            self.add(own, {name for name in wanted if own.defines(name) and not module.defines(name)})

    def _absolute(self, module: Module, node: ast.ImportFrom) -> str:
        base = module.name if module.is_package else module.name[:-1]
        up = base[: len(base) - node.level + 1] if node.level else ()
        return ".".join((*up, *(node.module.split(".") if node.module else ())))

    def _import_name(self, given: _Imported) -> None:
        top = given.module.partition(".")[0]
        if top == "typing_extensions" and hasattr(typing, given.name):
            top, given = "typing", given._replace(module="typing")  # it has what older versions of Python lacked
        if top not in sys.stdlib_module_names:
            raise UnfitError(OTHER_PACKAGES, given.module)
        # `import a.b` and `import a.c` give one name.
        self._mean(given.name, top if not given.imported and given.name == top else f"{given.module} {given.imported}")
        self._imports.add(given)

    def _mean(self, name: str, meaning: str) -> None:
        if self._meaning.setdefault(name, meaning) != meaning:
            raise UnfitError(OTHER_MODULES, f"{name} means two things")
