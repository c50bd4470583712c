"""What runs in a program's own process where a checker asks: its source, then each call that comes, answered in turn.

Answers are a line of JSON each: ["value", result], ["raised", class, text], or the end: ["E", text] the source or a
call ended the program, ["S", text] it does not compile, ["M"] out of memory, ["L"] a result too long to send.
A program may answer in this file's stead, which gains it nothing: it learns a call's arguments and gives a result.

Standard library only: the sandbox's worker script imports this file by its own path.
"""

import json
import os
import sys
import types
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lit_pref.sandbox import plain, program
else:  # files beside this one: nothing inside the sandbox imports the package
    import plain
    import program

TO_CHECKER, FROM_CHECKER = 3, 4


class _Objects:
    """What the checker may refer to, by number; 0 is the program's module."""

    def __init__(self, module: types.ModuleType) -> None:
        self._objects: list[Any] = [module]
        self._numbers = {id(module): 0}

    def refer(self, value: Any) -> int:
        number = self._numbers.setdefault(id(value), len(self._objects))
        if number == len(self._objects):
            self._objects.append(value)  # kept, so that its id stays its own
        return number

    def find(self, number: int | str, _: str) -> Any:
        return self._objects[int(number)]


def _actions() -> dict[str, Callable[..., Any]]:
    """Bound before the program can patch any of them, for what that is worth: its answers are its own anyway."""
    end: list[Any] = []

    def following(iterator: Iterator[Any]) -> list[Any]:
        found = next(iterator, end)
        return [] if found is end else [found]

    return {
        "call": lambda target, *arguments, **named: target(*arguments, **named),
        "getattr": getattr,
        "setattr": setattr,
        "getitem": lambda target, key: target[key],
        "len": len,
        "iter": iter,
        "next": following,
        "names": lambda module, *names: {name: getattr(module, name) for name in names if name in vars(module)},
    }


def serve(source: str) -> None:
    """Run the source and answer until the checker is gone; returns when that is over."""
    plain.allow_long_integers()
    code = program.compiled(source)
    if isinstance(code, bytes):
        _say_end(code)
        return
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    objects, actions = _Objects(module), _actions()
    try:
        exec(code, module.__dict__)
    except BaseException as error:  # noqa: BLE001 - SystemExit and the like end the program too
        _say_end(program.describe(error, error.__traceback__))
        return
    _say(["value", None])
    unread = b""
    while piece := os.read(FROM_CHECKER, 1 << 16):
        unread += piece
        if piece.endswith(b"\n"):  # one question at a time
            question, unread = json.loads(unread), b""
            if not _answer(question, objects, actions):
                return


def _answer(question: list[Any], objects: _Objects, actions: dict[str, Callable[..., Any]]) -> bool:
    """Whether the program goes on."""
    action, number, *parts = question
    try:
        arguments, *named = (plain.decode(part, objects.find) for part in parts)
        result = actions[action](objects.find(number, ""), *arguments, **(named[0] if named else {}))
        # An iterator is its reference, even where it is a plain value's.
        encoded = {"object": [objects.refer(result), "iterator"]} if action == "iter" else None
        line = plain.dumps(["value", encoded or plain.encode(result, objects.refer)])
    except plain.TooLargeError:
        _say(["L"])
        return False
    except Exception as error:  # noqa: BLE001 - whatever a program raises; the checker's test may expect it
        text = program.describe(error, error.__traceback__)
        if text.startswith(b"M"):
            _say_end(text)
            return False
        _say(["raised", type(error).__name__, text[2:-1].decode("ascii")])
        return True
    except BaseException as error:  # noqa: BLE001 - SystemExit and the like
        _say_end(program.describe(error, error.__traceback__))
        return False
    _write(line)
    return True


def _say_end(line: bytes) -> None:
    """From a line of `program`: its kind, a space, text."""
    _say([line[:1].decode(), line[2:-1].decode("ascii")])


def _say(message: list[Any]) -> None:
    _write(plain.dumps(message))


def _write(line: bytes) -> None:
    view = memoryview(line)
    while view:
        view = view[os.write(TO_CHECKER, view) :]
