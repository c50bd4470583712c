"""A docstring's examples as test code, and its prose without those that are hidden.

By the rules of `doctest`, where they make sense for another program than the one that was documented: a result that is
written as a literal is compared by its value, as MBPP's asserts do; any other by its text; what is printed, by what
stands there; an error by its class, since no prose tells the words of its message. `...` stands for any text whether
or not ELLIPSIS is set, as many packages set it for all their files; white space counts unless NORMALIZE_WHITESPACE is
set or the result is written over several lines.
Not covered: results without a text to compare (an object's address, `...` alone): such examples are run, not compared.
"""

import ast
import doctest
import re
from collections.abc import Collection, Sequence
from textwrap import indent
from typing import Literal, NamedTuple, get_args

from lit_pref.tasks.doctests.modules import Module
from lit_pref.tasks.doctests.needs import UnfitError, parsed

Shown = Literal["none", "first", "all"]
"""Which examples stay in the prompt; all are graded, and of "first" at least one other gives something else."""

_OWN_IMPORTS = {
    "re.fullmatch": "import re\n",
    "StringIO": "from contextlib import redirect_stdout\nfrom io import StringIO\n",
}
"""What the code made here needs, by what it then says."""

_PRINTING = frozenset({"print", "pprint", "pp", "write"})
_LEAST_WORDS = 2  # of two letters or more, that tell what a function does
_ADDRESS = re.compile(r"0x[0-9a-fA-F]{4,}|<[^<>]*(?:\bat\b|\.\.\.)[^<>]*>")
_DIRECTIVE = re.compile(r"[ \t]*#\s*doctest:.*")
_FENCE = re.compile(r"^[ \t]*(?:```\w*|\.\. (?:code-block|doctest)::.*)$", re.MULTILINE)
_HEADING = re.compile(
    r"(?:^[^\n\w]*(?:more |some |for |an? )?(?:examples?|usage|doctests?)(?: usage| use)?[^\n\w]*$\n?"
    r"(?:^[-=~^]+$\n?)?\s*)+\Z",
    re.IGNORECASE | re.MULTILINE,
)


class Docstring:
    """Prose and examples in turn. Raises UnfitError where the examples break doctest's rules, or there is none."""

    def __init__(self, text: str) -> None:
        try:
            self._parts = doctest.DocTestParser().parse(_FENCE.sub("", text))
        except ValueError as error:
            raise UnfitError("examples that doctest cannot read", str(error)) from error
        self.examples = [each for each in self._parts if isinstance(each, doctest.Example)]
        if not self.examples:
            raise UnfitError("no examples")
        self.statements = [_statements(each.source) for each in self.examples]

    def prose(self, shown: int) -> str:
        """The text with the first so many examples. Raises UnfitError where there is nothing told."""
        text, told, count = "", "", 0
        for part in self._parts:
            if isinstance(part, str):
                text, told = text + part, told + part
                continue
            count += 1
            if count <= shown:
                text += _as_shown(part)
            else:
                text = _HEADING.sub("", text)
        if len(re.findall(r"[^\W\d_]{2,}", _HEADING.sub("", told))) < _LEAST_WORDS:
            raise UnfitError("no description")
        return re.sub(r"\n[ \t]*\n\s*\n", "\n\n", text).strip()

    def shown(self, which: Shown, cases: Sequence[int]) -> int:
        """How many examples the prompt shows; cases: those that are compared, by their place."""
        if which == "all":
            return len(self.examples)
        others = {self.examples[place].want for place in cases[1:]} - {self.examples[case].want for case in cases[:1]}
        return cases[0] + 1 if which == "first" and others else 0


def _statements(source: str) -> list[ast.stmt]:
    """Of an example; none where it is no Python, such as `%timeit`."""
    try:
        return parsed(source).body
    except UnfitError:
        return []


def check_shown(which: Shown) -> None:
    """Raise ValueError for a value that is none."""
    if which not in get_args(Shown):
        raise ValueError(f"show_examples must be one of {', '.join(get_args(Shown))}, got {which!r}")


def _as_shown(example: doctest.Example) -> str:
    first, *more = _DIRECTIVE.sub("", example.source).rstrip("\n").split("\n")
    lines = [f">>> {first}", *(f"... {line}".rstrip() for line in more), *example.want.splitlines()]
    return indent("".join(f"{line}\n" for line in lines), " " * example.indent)


class _Direct(ast.NodeTransformer):
    """`module.name` as `name`, and imports of the package's own as what they bind anew."""

    def __init__(self, modules: Collection[str], imports: Collection[ast.stmt]) -> None:
        self._modules, self._imports = modules, imports

    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        if isinstance(node.value, ast.Name | ast.Attribute) and ast.unparse(node.value) in self._modules:
            return ast.copy_location(ast.Name(node.attr, node.ctx), node)
        self.generic_visit(node)
        return node

    def visit_ImportFrom(self, node: ast.ImportFrom) -> list[ast.stmt] | ast.stmt:
        if node not in self._imports:
            return node
        renamed = [each for each in node.names if each.asname and each.asname not in self._modules]
        return [
            ast.Assign([ast.Name(str(each.asname), ast.Store())], ast.Name(each.name, ast.Load())) for each in renamed
        ]

    def visit_Import(self, node: ast.Import) -> list[ast.stmt] | ast.stmt:
        return [] if node in self._imports else node


class Case(NamedTuple):
    """An example as code. compared: its result is asserted; place: among the docstring's examples."""

    code: str
    compared: bool
    place: int


class Own(NamedTuple):
    """What examples import of their package. modules: names of its modules; names: others, and where these are from;
    statements: that do so."""

    modules: set[str]
    names: dict[str, Module]
    statements: set[ast.stmt]


def cases_of(docstring: Docstring, own: Own, prints: bool) -> list[Case]:
    """The examples in order, without those that are no Python.

    Nor those that doctest would skip, unless they give a literal: most are skipped for the order of a dict or set.
    prints: what the function prints counts, too.
    """
    found, direct = list[Case](), _Direct(own.modules, own.statements)
    for place, (example, statements) in enumerate(zip(docstring.examples, docstring.statements, strict=True)):
        body = [ast.fix_missing_locations(each) for each in direct.visit(ast.Module(list(statements), [])).body]
        if not body or (example.options.get(doctest.SKIP) and _literal(example.want) is None):
            continue
        asserted = _asserted(body, example, prints)
        found.append(Case(asserted or "\n".join(map(ast.unparse, body)), bool(asserted), place))
    return found


def _asserted(body: Sequence[ast.stmt], example: doctest.Example, prints: bool) -> str:
    """The example with an assertion of its result; empty where that has no text to compare."""
    source, want = "\n".join(map(ast.unparse, body)), example.want
    indented = indent(source, "    ")
    if example.exc_msg is not None:
        name = re.match(r"[\w.]+", example.exc_msg)
        if name is None:
            return ""
        raised = f"assert type(_error).__name__ == {name[0].rpartition('.')[2]!r}, repr(_error)"
        return (
            f"try:\n{indented}\nexcept Exception as _error:\n    {raised}\nelse:\n    raise AssertionError({name[0]!r})"
        )
    if not want or _ADDRESS.search(want) or not want.replace("...", "").strip():
        return ""
    normalized = example.options.get(doctest.NORMALIZE_WHITESPACE, False)
    only = body[0] if len(body) == 1 else None
    if not isinstance(only, ast.Expr) or prints or _calls_print(only):
        shown = "" if not isinstance(only, ast.Expr) or _calls_print(only) else _SHOW.format(source)
        run = shown or indented
        compared = _compared("_printed.getvalue()", want.replace("<BLANKLINE>\n", "\n"), normalized)
        return f"with redirect_stdout(StringIO()) as _printed:\n{run}\nassert {compared}"
    literal = None if "..." in want and example.options.get(doctest.ELLIPSIS) else _literal(want)
    if literal is not None:
        return ast.unparse(ast.Assert(ast.Compare(only.value, [ast.Eq()], [literal])))
    want = want.removesuffix("\n")
    return "assert " + _compared(f"repr({source})", want, normalized or "\n" in want)


_SHOW = "    _shown = {}\n    if _shown is not None:\n        print(repr(_shown))"


def _compared(text: str, want: str, normalized: bool) -> str:
    if normalized:
        text, want = f"' '.join({text}.split())", " ".join(want.split())
    if "..." in want:
        pattern = ".*".join(map(re.escape, want.split("...")))
        return f"re.fullmatch({pattern!r}, {text}, re.DOTALL)"
    return f"{text} == {want!r}"


def _literal(want: str) -> ast.expr | None:
    """The result, where it is written as a literal."""
    body = _statements(want.strip())
    try:
        ast.literal_eval(want.strip())
        elided = any(isinstance(each, ast.Constant) and each.value is ... for each in ast.walk(body[0]))
    except (ValueError, SyntaxError, TypeError, IndexError, MemoryError, RecursionError):
        return None
    return body[0].value if isinstance(body[0], ast.Expr) and not elided else None


def context_of(code: str) -> str:
    """The imports that test code made of examples needs of its own."""
    return "".join(lines for said, lines in _OWN_IMPORTS.items() if said in code)


def _calls_print(node: ast.AST) -> bool:
    calls = [each.func for each in ast.walk(node) if isinstance(each, ast.Call)]
    names = {each.id for each in calls if isinstance(each, ast.Name)}
    return bool(_PRINTING & (names | {each.attr for each in calls if isinstance(each, ast.Attribute)}))
