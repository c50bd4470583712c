"""A package's functions as problems: which there are, what a model is told of each, and what grades it.

A function of the top level whose docstring has examples. Told are the imports of its module that it uses, what its
signature needs, the signature, and the docstring's prose. Its reference is its own body, with the helpers and constants
of the package that it uses. Not covered: methods, nested and asynchronous functions, docstrings of modules and classes.
"""

import ast
import re
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from inspect import cleandoc
from textwrap import indent
from typing import NamedTuple

from lit_pref.machine.progress import progress_bar
from lit_pref.syntax.python import statements
from lit_pref.tasks.doctests.examples import Case, Docstring, Own, Shown, cases_of, context_of
from lit_pref.tasks.doctests.modules import Module, Modules
from lit_pref.tasks.doctests.needs import Needs, UnfitError, parsed

_PRINTS = re.compile(r"\bprint\(|\bstdout\b")
_SHORT = 20  # modules that are read before anyone asks how long it takes
_SIGNATURE_ONLY = "has no body on lines of its own"


class Function(NamedTuple):
    """A function that makes a problem.

    module, name: where it stands; location: its file and line.
    before: imports, and what the signature needs; head: signature and docstring; body: what follows these.
    helpers: what the body needs of the package.
    check: test code; context: what that needs.
    """

    module: str
    name: str
    location: str
    before: str
    head: str
    body: str
    helpers: str
    check: str
    context: str

    @property
    def id(self) -> str:
        return f"{self.module}.{self.name}"

    @property
    def length(self) -> int:
        """Of prompt and reference, in characters."""
        return sum(map(len, (self.before, self.head, self.body, self.helpers)))


class Found(NamedTuple):
    """functions; left_out: by its name, why another function, method or file makes no problem."""

    functions: list[Function]
    left_out: dict[str, str]


def functions_of(modules: Modules, show: Shown, max_characters: int) -> Found:
    """The functions in the order of their modules' names; of those that are told alike, the first."""
    found, seen = Found([], dict(modules.refused)), dict[str, str]()
    holding = sorted((each for each in modules.by_name.values() if ">>>" in each.source), key=lambda each: each.name)
    told = progress_bar("Reading docstrings, modules", len(holding)) if len(holding) > _SHORT else nullcontext()
    with told as done:
        for number, module in enumerate(holding):
            if done is not None:
                done(number)
            _read(module, modules, show, max_characters, found, seen)
    return found


def _read(
    module: Module, modules: Modules, show: Shown, max_characters: int, found: Found, seen: dict[str, str]
) -> None:
    try:
        tree = parsed(module.source)
    except UnfitError as error:
        found.left_out[module.origin] = f"{error.reason}: {error}"
        return
    within = ".".join(module.name)
    found.left_out.update({f"{within}.{name}": "is a method, a class or nested" for name in _inner(tree)})
    for node in _last_of_each(tree):
        name = f"{within}.{node.name}"
        try:
            function = _function(modules, module, node, show)
            if function.length > max_characters:
                raise UnfitError("is too long")
            alike = f"{function.head}{function.check}".replace(node.name, "f")
            if (same := seen.setdefault(alike, name)) != name:
                raise UnfitError("is told as another one is", same)
            found.functions.append(function)
        except UnfitError as error:
            found.left_out[name] = error.reason if str(error) == error.reason else f"{error.reason}: {error}"


_Defined = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def _last_of_each(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """The functions of the top level with examples; a later one of a name replaces an earlier."""
    every = {each.name: each for each in tree.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)}
    return (each for each in every.values() if _has_examples(each))


def _inner(tree: ast.Module) -> Iterator[str]:
    """Names of what has examples and is no function of the top level."""
    top = {each for each in tree.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)}
    for each in ast.walk(tree):
        if isinstance(each, _Defined) and each not in top and _has_examples(each):
            yield f"{each.name}:{each.lineno}"


def _has_examples(node: _Defined) -> bool:
    return ">>>" in (ast.get_docstring(node, clean=False) or "")


def _function(modules: Modules, module: Module, node: ast.FunctionDef | ast.AsyncFunctionDef, show: Shown) -> Function:
    if isinstance(node, ast.AsyncFunctionDef):
        raise UnfitError("is asynchronous")
    own = [each for each in module.statements if node.name in each.binds and each.kind == "function_definition"]
    if not own:
        raise UnfitError("broken syntax")
    # The signature's needs stand before it, the body's may follow.
    needs = Needs(modules, (module, node.name))
    needs.add(module, _signature_names(node))
    first = len(needs.statements)
    needs.add(module, own[-1].uses - {node.name}, node.name)
    told = own[-1].uses.union(*(each.uses for text in needs.statements[:first] for each in statements(text)))
    source = needs.rewritten(own[-1].text, needs.aliases(module, own[-1].uses))
    docstring = Docstring(cleandoc(ast.get_docstring(node, clean=False) or ""))
    head, body = _split(source)
    prints = _PRINTS.search(body + "".join(each.source for each in docstring.examples)) is not None
    cases, context = _test(modules, module, node.name, docstring, prints)
    compared = [each.place for each in cases if each.compared]
    prose = docstring.prose(docstring.shown(show, compared))
    return Function(
        ".".join(module.name),
        node.name,
        f"{module.origin}:{node.lineno}",
        joined(needs.imports(told), *needs.statements[:first]),
        head + indent(_quoted(prose), _indent(body), lambda line: bool(line.strip())),
        body,
        joined(needs.imports(told, but=True), *needs.statements[first:]),
        "".join(f"{each.code}\n" for each in cases),
        context,
    )


# --- tests ------------------------------------------------------------------------------------------------------------


def _test(modules: Modules, module: Module, name: str, docstring: Docstring, prints: bool) -> tuple[list[Case], str]:
    """The examples as test code, and what that needs of the package. Raises UnfitError where they test nothing."""
    own = _imported(modules, module, [each for several in docstring.statements for each in several])
    cases = cases_of(docstring, own, prints)
    wants = [docstring.examples[each.place].want for each in cases if each.compared]
    if not wants:
        addresses = any(re.search(r"\b0x[0-9a-fA-F]{4,}", each.want) for each in docstring.examples)
        raise UnfitError("shows an object's address" if addresses else "shows no result")
    if {want.strip() for want in wants} in ({"True"}, {"False"}) or all("Traceback" in want for want in wants):
        raise UnfitError("shows one result throughout")
    code = "".join(f"{each.code}\n" for each in cases)
    body = statements(code)
    used = {each for statement in body for each in statement.uses}
    if name not in used:
        raise UnfitError("is not called by its examples")
    if any(name in statement.binds for statement in body):
        raise UnfitError("is given another meaning by its examples")
    needs = Needs(modules)
    for each in sorted(used & own.names.keys() - {name}):
        needs.borrow(own.names[each], each)
    needs.add(module, used - {name} - own.names.keys(), name)
    return cases, joined(needs.imports() + context_of(code), *needs.statements)


def _imported(modules: Modules, module: Module, body: Sequence[ast.stmt]) -> Own:
    own = Own(set(), {}, set())
    for node in body:
        if isinstance(node, ast.Import) and all(_own(modules, module, each.name) for each in node.names):
            own.statements.add(node)
            own.modules.update(each.asname or each.name for each in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and (origin := _own(modules, module, node.module)):
            own.statements.add(node)
            for each in node.names:
                if _own(modules, module, f"{node.module}.{each.name}") and not origin.defines(each.name):
                    own.modules.add(each.asname or each.name)
                elif each.name != "*":
                    own.names[each.name] = origin
    return own


def _own(modules: Modules, module: Module, name: str) -> Module | None:
    """A module of the package by its name; of the standard library only the function's own, as others can be had."""
    if modules.importable:
        return module if name == ".".join(module.name) else None
    return modules.named(tuple(name.split(".")), module)


# --- text -------------------------------------------------------------------------------------------------------------


def _signature_names(node: ast.FunctionDef) -> set[str]:
    parts = [*node.decorator_list, node.args, *([node.returns] if node.returns else [])]
    return {each.id for part in parts for each in ast.walk(part) if isinstance(each, ast.Name)}


def _split(source: str) -> tuple[str, str]:
    """The lines up to the docstring, and those behind it. Raises UnfitError where they are not apart."""
    node = parsed(source).body[0]
    assert isinstance(node, ast.FunctionDef)
    told, lines = node.body[0], source.split("\n")
    assert told.end_lineno is not None
    if (
        len(node.body) < 2
        or node.body[1].lineno <= told.end_lineno
        or lines[told.lineno - 1][: told.col_offset].strip()
    ):
        raise UnfitError(_SIGNATURE_ONLY)
    return "".join(f"{line}\n" for line in lines[: told.lineno - 1]), "\n".join(lines[told.end_lineno :]) + "\n"


def _indent(body: str) -> str:
    first = next(line for line in body.split("\n") if line.strip() and not line.strip().startswith("#"))
    return first[: len(first) - len(first.lstrip())]


def _quoted(prose: str) -> str:
    mark = "r" if "\\" in prose and '"""' not in prose and not prose.endswith("\\") else ""
    text = prose if mark else prose.replace("\\", "\\\\").replace('"""', '\\"\\"\\"')
    if text.endswith('"'):
        text += " "
    return f'{mark}"""{text}"""\n' if "\n" not in text else f'{mark}"""{text}\n"""\n'


def joined(*parts: str) -> str:
    """Definitions with two empty lines between them."""
    texts = [part.strip("\n") for part in parts]
    return "\n\n\n".join(text for text in texts if text) + "\n" if any(texts) else ""
