"""Which statements of a program its function needs when it runs: what defines names, and what changes their values.

Beside definitions and assignments these are calls that fill a table, register a function or set a limit of Python's
own (`sys.setrecursionlimit`). Demonstrations are not: they print, assert, read input, or call the function itself.
Not covered: changes of objects under another name (`t = table`).
"""

import re
from collections.abc import Sequence

from lit_pref.syntax.names import DEFINITIONS, IMPORTS
from lit_pref.syntax.python import BUILTINS, Statement

_INPUT = re.compile(r"\binput\s*\(|\bstdin\b|\bsys\.argv\b")
_CALLED = re.compile(r"(?<![\w.])([\w.]++)\s*+\(")  # possessive: a model may write one word of 20,000 letters
_ENDS = frozenset(
    {"main", "testmod", "exit", "_exit", "quit", "show", "sleep", "write", "flush", "run", "start", "join"}
)
"""Calls of modules that run tests or programs, show something, wait or end the program: no function needs them."""
_BY_TEXT = frozenset({"exec", "globals", "vars", "setattr", "delattr"})
"""Builtins that change what only a text names."""


def needed(pool: Sequence[Statement], names: frozenset[str], entry_point: str = "") -> list[int]:
    """Indices of the statements that give the names their values, directly or through what those use.

    entry_point: a call of it is a demonstration, whatever it changes.
    """
    calls = _Calls(pool, entry_point)
    importing = [each for each in pool if each.kind in IMPORTS or _imports(each)]
    modules = {name for each in importing for name in each.binds}
    foreign = modules | BUILTINS
    defined = {name for each in pool if each.kind in DEFINITIONS for name in each.binds} | foreign
    giving: dict[str, list[int]] = {}  # by name, the statements that may give it its value
    for place, each in enumerate(pool):
        effects = calls.effects(each)
        for name in each.changes | (effects - (foreign if each.kind == "class_definition" else defined)):
            giving.setdefault(name, []).append(place)
    reached = {i for i, each in enumerate(pool) if _sets_up(each, modules, entry_point)}
    wanted = names | {name for i in reached for name in pool[i].uses}
    left = list(wanted)
    while left:
        for place in giving.get(left.pop(), ()):
            if place not in reached:
                reached.add(place)
                left += pool[place].uses - wanted
                wanted |= pool[place].uses
    return sorted(reached)


class _Calls:
    """What may change when a name is called, directly or through what that calls in turn; but not the entry point."""

    def __init__(self, pool: Sequence[Statement], entry_point: str) -> None:
        self._entry_point = entry_point
        self._run: dict[str, set[str]] = {}
        self._asking: set[str] = set()  # names whose call waits for input
        self._reached: dict[str, frozenset[str]] = {}
        for statement in pool:
            # Of a lambda or a partial function, all that it uses.
            names = statement.alters if statement.kind in DEFINITIONS else statement.uses
            asks = _INPUT.search(statement.text) is not None
            for name in statement.binds:
                self._run.setdefault(name, set()).update(names)
                if asks:
                    self._asking.add(name)

    def effects(self, statement: Statement) -> frozenset[str]:
        """Names whose values may be others once the statement was executed, by what it calls."""
        if statement.kind in IMPORTS or _INPUT.search(statement.text):
            return frozenset()
        found = statement.touches.union(*(self._from(name) for name in statement.touches))
        return frozenset() if found & self._asking - {self._entry_point} else found

    def _from(self, name: str) -> frozenset[str]:
        if name not in self._reached:
            found, left = set[str](), [name]
            while left:
                new = self._run.get(called, set()) - found if (called := left.pop()) != self._entry_point else set()
                found |= new
                left += new
            self._reached[name] = frozenset(found)
        return self._reached[name]


def _imports(statement: Statement) -> bool:
    """Whether it imports in a branch, as after `try`; a function that does so when it is called binds its own name."""
    return statement.kind not in DEFINITIONS and "import " in statement.text


def _sets_up(statement: Statement, modules: set[str], entry_point: str) -> bool:
    """Whether it changes a module, by a call for its effect or an attribute that it sets, or what only a text names."""
    if statement.kind in DEFINITIONS | IMPORTS or entry_point in statement.uses or _INPUT.search(statement.text):
        return False
    calls = [name.split(".") for name in _CALLED.findall(statement.text)]
    if any(path[-1] in _ENDS | {"print", "pprint"} for path in calls):
        return False
    of_modules = not statement.binds and any(path[0] in modules | _BY_TEXT for path in calls)
    return of_modules or bool((statement.changes - statement.binds) & modules)
