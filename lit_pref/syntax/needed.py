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
_CALLED = re.compile(r"([\w.]+)\s*\(")
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
    effects = [_effects(pool, statement, entry_point) for statement in pool]
    modules = {name for each in pool if each.kind in IMPORTS or "import " in each.text for name in each.binds}
    defined = {name for each in pool if each.kind in DEFINITIONS for name in each.binds} | modules | BUILTINS
    reached = {i for i, each in enumerate(pool) if _sets_up(each, modules, entry_point)}
    wanted = names | {name for i in reached for name in pool[i].uses}
    while True:
        new = {
            i
            for i, each in enumerate(pool)
            if i not in reached
            and (
                each.changes & wanted or effects[i] & (wanted if each.kind == "class_definition" else wanted - defined)
            )
        }
        if not new:
            return sorted(reached)
        reached |= new
        wanted |= {name for i in new for name in pool[i].uses}


def _effects(pool: Sequence[Statement], statement: Statement, entry_point: str) -> frozenset[str]:
    """Names whose values may be others once the statement was executed, by what it calls."""
    if statement.kind in IMPORTS or _INPUT.search(statement.text):
        return frozenset()
    found, called = set(statement.touches), statement.touches - {entry_point}
    seen = set[int]()
    while called:
        reached = [i for i, each in enumerate(pool) if i not in seen and each.binds & called]
        if any(_INPUT.search(pool[i].text) for i in reached):
            return frozenset()
        seen.update(reached)
        called = frozenset(name for i in reached for name in _runs(pool[i])) - found - {entry_point}
        found |= called
    return frozenset(found)


def _runs(statement: Statement) -> frozenset[str]:
    """What may change when what a statement binds is called: of a lambda or a partial function, all that it uses."""
    return statement.alters if statement.kind in DEFINITIONS else statement.uses


def _sets_up(statement: Statement, modules: set[str], entry_point: str) -> bool:
    """Whether it changes a module, by a call for its effect or an attribute that it sets, or what only a text names."""
    if statement.kind in DEFINITIONS | IMPORTS or entry_point in statement.uses or _INPUT.search(statement.text):
        return False
    calls = [name.split(".") for name in _CALLED.findall(statement.text)]
    if any(path[-1] in _ENDS | {"print", "pprint"} for path in calls):
        return False
    of_modules = not statement.binds and any(path[0] in modules | _BY_TEXT for path in calls)
    return of_modules or bool((statement.changes - statement.binds) & modules)
