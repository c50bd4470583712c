"""What runs in the checker's process: test code that calls into a program in another one, by plain values alone.

The program never sees the tests; it is asked for results, argument by argument, as any caller would ask. Its answers
are decoded to builtin values (`plain.py`), so equality is Python's own. Where it gives an object of another type the
test holds a reference, which can be called, indexed, iterated and asked for attributes, and which equals itself alone.
How it ends is written as one line:

    N <proof>        the test code ran to its end; before it, for a reference, P <licence>
    A <test> <text>  an assertion is false                   E <test> <text>  the program raised
    X <test> <text>  the test raised over the result         L <test>         a result is too long
    M <test>         the program ran out of memory           S <text>         the program does not compile
    D <test>         the program's process ended             H <text>         the test code itself is broken

<test> counts the assert statements from 0; -1 is before the first.

Standard library only: the sandbox's worker script imports this file by its own path.
"""

import ast
import builtins
import json
import os
import types
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from lit_pref.sandbox import plain
else:  # a file beside this one: nothing inside the sandbox imports the package
    import plain

CHANNEL, TO_PROGRAM, FROM_PROGRAM = 3, 4, 5
CHECK_NAME = "<check>"


class ProgramEnd(BaseException):
    """The program's process said or did something after which nothing more can be asked; args: kind, text."""


class ProgramError(Exception):
    """An exception of the program whose class is none of Python's own."""


class Reference:
    """An object in the program's process."""

    def __init__(self, program: "Connection", name: int, kind: str) -> None:
        object.__setattr__(self, "_place", (program, name, kind))

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        program, name, _ = self._place
        return program.ask("call", name, list(arguments), named)

    def __getattr__(self, attribute: str) -> Any:
        program, name, _ = self._place
        return program.ask("getattr", name, [attribute])

    def __setattr__(self, attribute: str, value: Any) -> None:
        program, name, _ = self._place
        program.ask("setattr", name, [attribute, value])

    def __getitem__(self, key: Any) -> Any:
        program, name, _ = self._place
        return program.ask("getitem", name, [key])

    def __len__(self) -> int:
        program, name, _ = self._place
        return int(program.ask("len", name, []))

    def __iter__(self) -> Iterator[Any]:
        program, name, _ = self._place
        iterator = program.ask("iter", name, [])
        while True:
            found = program.ask("next", iterator._place[1], [])
            if not found:
                return
            yield found[0]

    def __bool__(self) -> NoReturn:
        raise TypeError(f"{self!r} is no truth value")

    def __repr__(self) -> str:
        return f"<the program's {self._place[2]}>"

    __hash__ = object.__hash__


class Connection:
    """Questions to the program's process and its answers, a line of JSON each."""

    def __init__(self) -> None:
        self._unread = b""
        self._objects: dict[int, Reference] = {}
        self.last: Any = None

    def begin(self, names: list[str]) -> dict[str, Any]:
        """Wait until the source has run; those of the names that it defines. Raises ProgramEnd."""
        self._answer()
        return dict(self.ask("names", 0, names))

    def ask(self, action: str, name: int, arguments: list[Any], named: dict[str, Any] | None = None) -> Any:
        """The result. Raises what the program raised, as Python's own exception of that name where there is one."""
        try:
            parts = [plain.encode(part, self._refer) for part in ([arguments, named] if named else [arguments])]
            line = plain.dumps([action, name, *parts])
        except plain.TooLargeError as error:
            raise ProgramEnd("H", f"the test passes {error}") from None
        self._send(line)
        self.last = self._answer()
        return self.last

    @staticmethod
    def _refer(value: Any) -> int:
        if type(value) is Reference:
            return int(value._place[1])
        raise ProgramEnd("H", f"the test passes an object of type {type(value).__name__}, which cannot leave it")

    def _find(self, name: int | str, kind: str) -> Reference:
        if type(name) is not int or type(kind) is not str:
            raise ValueError("no reference")
        return self._objects.setdefault(name, Reference(self, name, kind))

    def _send(self, line: bytes) -> None:
        view = memoryview(line)
        try:
            while view:
                view = view[os.write(TO_PROGRAM, view) :]
        except BrokenPipeError:
            raise ProgramEnd("D", "") from None

    def _answer(self) -> Any:
        pieces = [self._unread]
        size = len(self._unread)
        while b"\n" not in pieces[-1]:
            piece = os.read(FROM_PROGRAM, 1 << 16)
            size += len(piece)
            if not piece:
                raise ProgramEnd("D", "")
            if size > plain.MAX_BYTES:
                raise ProgramEnd("L", "")
            pieces.append(piece)
        line, _, self._unread = b"".join(pieces).partition(b"\n")
        try:
            kind, *content = json.loads(line)
            if kind == "value":
                return plain.decode(content[0], self._find)
            kind, *texts = [str(part) for part in (kind, *content)]
        except (ValueError, RecursionError, IndexError, TypeError):
            raise ProgramEnd("E", "it wrote what is no answer into its channel") from None
        if kind == "raised" and len(texts) == 2:
            raise _exception(*texts)
        raise ProgramEnd(kind if kind in ("S", "E", "M", "L") else "E", " ".join(texts))


def _exception(name: str, text: str) -> Exception:
    """Python's exception of that name, marked as the program's."""
    kind = getattr(builtins, name, None)
    message = text.removeprefix(name).removeprefix(": ")
    ours = isinstance(kind, type) and issubclass(kind, Exception) and kind is not StopIteration
    try:
        error: Exception = (kind if ours else ProgramError)(message)  # type: ignore[misc]
    except TypeError:  # UnicodeDecodeError and the like want more than a message
        error = ProgramError(message)
    error.of_program = text  # type: ignore[attr-defined]
    return error


def run_check(content: list[str], proof: bytes) -> None:
    """Run the test code against the program at the other end and write how it ended."""
    code, context, _licence, *entry_points = content
    plain.allow_long_integers()
    program = Connection()
    try:
        module = types.ModuleType("__main__")
        exec(compile(context, "<context>", "exec", dont_inherit=True), module.__dict__)
        compiled = compile(code, CHECK_NAME, "exec", dont_inherit=True)
        wanted = [*entry_points, *sorted(_names(compiled) - set(module.__dict__) - set(entry_points))]
    except BaseException as error:  # noqa: BLE001 - whatever it is, it is not the program's
        _write("H", f"{type(error).__name__}: {error}")
        return
    try:
        module.__dict__.update(program.begin(wanted))
        for name in entry_points:
            if name not in module.__dict__ or not isinstance(module.__dict__[name], Reference):
                raise ProgramEnd("E", f"NameError: name {name!r} is not defined")
        exec(compiled, module.__dict__)
    except ProgramEnd as end:
        _write(end.args[0], end.args[1], _test_of(end, code)[0])
    except BaseException as error:  # noqa: BLE001 - SystemExit of a test is no passing either
        _write_failure(error, code, program.last)
    else:
        os.write(CHANNEL, proof)


def _write_failure(error: BaseException, code: str, last: Any) -> None:
    index, failed = _test_of(error, code)
    text = getattr(error, "of_program", None)
    if text is not None:
        _write("E", text, index)
    elif isinstance(error, AssertionError) and failed is not None:
        _write("A", f"{ast.unparse(failed.test)[:120]}; the last result was {_short(last)}", index)
    elif isinstance(error, AssertionError):
        _write("A", f"{error}; the last result was {_short(last)}", index)
    elif isinstance(error, NameError):  # all names that a test may miss are asked of the program
        _write("E", f"{type(error).__name__}: {error}", index)
    else:
        _write("X", f"{type(error).__name__}: {error}; the last result was {_short(last)}", index)


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


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _write(kind: str, text: str, index: int | None = None) -> None:
    number = "" if index is None or kind in ("S", "H") else f"{index} "
    line = f"{kind} {number}{' '.join(text.split())[:400]}\n"
    os.write(CHANNEL, line.encode("ascii", "backslashreplace"))
