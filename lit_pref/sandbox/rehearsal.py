"""A conversation of both ends in one process, before any fork: what runs for the first time there runs dear in forks.

CPython rewrites a function's code as it warms up, and a page that is written to must be copied in each process that
does: 80 pages in each of the two, a sixth of their time.
"""

import json
import types
from typing import Any

from lit_pref.sandbox import checker, mirrors, served

_TIMES = 10  # the interpreter warms up over eight calls


def rehearse() -> None:
    """Call a function of a program's as a test would."""
    for _ in range(_TIMES):
        module = types.ModuleType("__main__")
        module.f = lambda values: values[0] > 1  # type: ignore[attr-defined]
        program, test = served.Served(module), checker.Connection([])
        lines = [b'["value", null, [], []]']
        _join(program, test, lines)
        names: dict[str, Any] = {}
        test.begin(["f"], False, names)
        if names["f"]([2.0, 1]) is not True:
            raise RuntimeError("a program's function cannot be called")
    mirrors.use(mirrors.Asker())


def _join(program: Any, test: Any, lines: list[bytes]) -> None:
    def answer(line: bytes) -> None:
        action, *content = json.loads(line)
        program.answer(action, content)

    program.write = lines.append
    test.write = answer
    test.receive = lambda: list(json.loads(lines.pop()))
