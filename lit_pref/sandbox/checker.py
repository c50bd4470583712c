"""What runs in the checker's process: test code that calls into a program in another one.

The program never sees the tests; it is asked for results, argument by argument, as any caller would ask (`peer.py`).
Its answers are plain values, compared here by Python's own means, or mirrors of its objects (`mirrors.py`). It may
ask back where it was given functions or objects of the test's (`lent.py`).

Names that the test uses and defines nowhere are the program's, and no others: none of Python's own, and none of the
context, whatever the program tells. What it writes out of turn, or what is no answer, ends it as an error of its own;
only test code that is broken before the program is asked anything is ours.
How it ends is written as one line:

    N <proof>        the test code ran to its end; before it, for a reference, P <licence>
    A <test> <text>  an assertion is false                   E <test> <text>  the program raised
    X <test> <text>  the test raised over the result         L <test>         a result is too long
    M <test>         the program ran out of memory           S <text>         the program does not compile
    D <test>         the program's process ended             H <text>         the test code itself is broken

<test> counts the assert statements from 0; -1 is before the first.
"""

import ast
import builtins
import json
import os
import sys
import types
from collections import deque
from typing import Any

from lit_pref.sandbox import lent, peer, plain

CHANNEL, TO_PROGRAM, FROM_PROGRAM = 3, 4, 5
CHECK_NAME, CONTEXT_NAME = "<check>", "<context>"
_SILENT = (StopIteration, StopAsyncIteration, GeneratorExit)  # what asks for values takes them for the end of values
_ENDING = ("__next__", "__anext__")


class ProgramError(Exception):
    """An error of the program that may not be raised as what it is."""


class Connection(peer.Peer):
    """The checker's end.

    licence: what the reference needed; None where this program is the reference.
    """

    def __init__(self, licence: list[str] | None) -> None:
        super().__init__(FROM_PROGRAM, TO_PROGRAM, -1, lent.actions(lambda value: self.exchange.is_own(value)))
        self._licence = licence
        self.needed: set[str] = set()
        entries = [each.split(" ") for each in licence or () if each.startswith("name ")]
        self._of_library = {name: meant for _, name, meant in entries}
        self._module: dict[str, Any] = {}
        self._given: dict[str, Any] = {}
        self._tested = ""
        self._errors: deque[tuple[BaseException, str]] = deque(maxlen=64)
        self.last: Any = None
        self.ending: peer.End | None = None

    def begin(self, names: list[str], printed: bool, module: dict[str, Any], tested: str = "") -> dict[str, Any]:
        """Wait until the source has run; then those of the names that it defines stand in the module, and are kept."""
        self.result()
        self._module, self._given, self._tested = module, dict.fromkeys(names, self), tested
        self.ask("names", printed, *names)
        return {name: value for name, value in self._given.items() if value is not self}

    def result(self, *asked: Any) -> Any:
        self.last = super().result(*asked)
        return self.last

    def hear(self, name: str, content: Any) -> None:
        if name == "printed" and type(content) is str:
            if sys.stdout is not sys.__stdout__:  # the test takes it
                sys.stdout.write(content)
        elif name == "name":
            meant, value = content[0], self._meaning(content[0], self.exchange.decode(content[1]), content[2])
            if self._module.get(meant, self) is not self._given[meant]:
                return  # the test uses the name for something of its own by now
            self._module[meant] = self._given[meant] = value
        else:
            raise ValueError("no news that are known here")

    def _meaning(self, name: str, value: Any, library: str) -> Any:
        """A name of the library's is the checker's own: under the reference's, or, where none tells, its modules'."""
        if name == self._tested:
            return value
        if self._licence is None:
            if library or name in sys.stdlib_module_names:
                self.needed.add(f"name {name} {library or '-'}")
            return plain.of_library(library) if library else value
        module = f"{name}:" if name in sys.stdlib_module_names else "-"
        meant = self._of_library.get(name, module)
        return value if meant == "-" else plain.of_library(meant)

    def licensed(self, name: str, others: tuple[Any, ...]) -> bool:
        place = []
        frame: types.FrameType | None = sys._getframe()
        while frame is not None:
            if frame.f_code.co_filename in (CHECK_NAME, CONTEXT_NAME):
                place.append(f"{frame.f_code.co_name}:{frame.f_lineno}+{frame.f_lasti}")
            frame = frame.f_back
        needed = " ".join([name, *(type(other).__name__ for other in others), *place])
        if self._licence is None:
            self.needed.add(needed)
            return True
        return needed in self._licence

    def describe(self, error: BaseException) -> str:
        return type(error).__name__

    def foreign(self, error: BaseException, text: str, asked: tuple[Any, ...]) -> BaseException:
        if self.exchange.is_own(error):  # the test's own, back from where it passed through the program
            return error
        silent = next((kind for kind in _SILENT if isinstance(error, kind)), None)
        expected = asked[0] == "special" and asked[2] in _ENDING
        if silent is not None and not expected and not self.licensed(silent.__name__, ()):
            error = ProgramError(text)
        self._errors.append((error, text))
        return error.with_traceback(None)

    def end(self, kind: str, text: str = "") -> BaseException:
        kind = kind if kind in ("S", "E", "M", "L", "D") else "E"
        text = f"the test passes {text}" if kind == "L" and text else text
        self.ending = self.ending or peer.End(kind, text)
        self.over = True
        return self.ending

    def text_of(self, error: BaseException) -> str | None:
        """How the program described an error of its own."""
        return next((text for each, text in self._errors if each is error), None)


def run_check(content: list[str], proof: bytes) -> None:
    """Run the test code against the program at the other end and write how it ended."""
    plain.allow_long_integers()
    code, context, licence, _, *entry_points = content
    try:
        module = types.ModuleType("__main__")
        exec(compile(context, CONTEXT_NAME, "exec", dont_inherit=True), module.__dict__)
        compiled = compile(code, CHECK_NAME, "exec", dont_inherit=True)
        names = [each for each in sorted(_names(compiled) - set(module.__dict__)) if not each.startswith("__")]
        wanted = list(dict.fromkeys([*entry_points, *names]))
        for name in entry_points:
            module.__dict__.pop(name, None)
    except BaseException as error:  # noqa: BLE001 - whatever it is, it is not the program's
        _write("H", f"{type(error).__name__}: {error}")
        return
    program = Connection(json.loads(licence))
    try:
        _run(program, compiled, module.__dict__, wanted, entry_points, "stdout" in code)
    except BaseException as error:  # noqa: BLE001 - SystemExit of a test is no passing either
        program.over = True
        _write_failure(error, code, program)
    else:
        if program.ending is not None:  # the test took it for an error that it expects
            _write(program.ending.args[0], program.ending.args[1], -1)
            return
        if program.needed:
            _write("P", json.dumps(sorted(program.needed)))
        os.write(CHANNEL, proof)


def _run(
    program: Connection,
    compiled: types.CodeType,
    module: dict[str, Any],
    wanted: list[str],
    entry_points: list[str],
    printed: bool,
) -> None:
    given = program.begin(wanted, printed, module, next(iter(entry_points), ""))
    for name in entry_points:
        if name not in given:
            raise program.end("E", f"NameError: name {name!r} is not defined")
    if entry_points and not callable(given[entry_points[0]]):
        raise program.end("E", f"TypeError: {type(given[entry_points[0]]).__name__!r} object is not callable")
    exec(compiled, module)


def _write_failure(error: BaseException, code: str, program: Connection) -> None:
    """Nothing of the program's is asked any more; whatever its values do to being shown, a line is written."""
    index, failed = _test_of(error, code)
    text = program.text_of(error)
    if isinstance(error, peer.End):
        _write(error.args[0], error.args[1], index)
    elif text is not None:
        _write("E", text, index)
    elif isinstance(error, AssertionError):
        what = ast.unparse(failed.test)[:120] if failed is not None else _text(error)
        _write("A", f"{what}; the last result was {_short(program.last)}", index)
    elif isinstance(error, NameError):  # all names that a test may miss are asked of the program
        _write("E", f"{type(error).__name__}: {_text(error)}", index)
    else:
        _write("X", f"{type(error).__name__}: {_text(error)}; the last result was {_short(program.last)}", index)


def _names(code: types.CodeType) -> set[str]:
    """Names that the code may look for outside its functions, attributes among them: the program may define them."""
    inner = (_names(const) for const in code.co_consts if isinstance(const, types.CodeType))
    return set(code.co_names).union(*inner) - vars(builtins).keys()


def _test_of(error: BaseException, code: str) -> tuple[int, ast.Assert | None]:
    """The innermost assert statement that was being executed: its number, -1 for none, and itself."""
    asserts = sorted((n for n in ast.walk(ast.parse(code)) if isinstance(n, ast.Assert)), key=lambda n: n.lineno)
    found: tuple[int, ast.Assert | None] = -1, None
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == CHECK_NAME:
            for index, node in enumerate(asserts):
                if node.lineno <= trace.tb_lineno <= (node.end_lineno or node.lineno):
                    found = index, node
        trace = trace.tb_next
    return found


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - a value in it that cannot be shown
        return "<no text>"


def _short(value: Any) -> str:
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 - too deep, too large
        text = f"a {type(value).__name__}"
    return text if len(text) <= 80 else text[:77] + "..."


def _write(kind: str, text: str, index: int | None = None) -> None:
    number = "" if index is None or kind in ("S", "H", "P") else f"{index} "
    limit = None if kind == "P" else 400
    line = f"{kind} {number}{' '.join(text.split())[:limit]}\n"
    os.write(CHANNEL, line.encode("ascii", "backslashreplace"))
