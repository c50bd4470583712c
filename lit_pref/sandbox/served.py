"""What runs in a program's own process where a checker asks: its source, then each call that comes, answered in turn.

The checker's test is trusted, and may do with the program's objects what Python lets it. A program may answer in this
file's stead, which gains it nothing: it learns a call's arguments, gives a result, and whatever it gives is a plain
value there, or a mirror that only asks it again. That a further question is asked at all tells it that the test found
no fault so far, since test code decides by the answers what it asks next; what follows is nothing: each question must
be answered right when it is first asked, and nothing that it keeps is there when the next program runs.
"""

import copy
import operator
import os
import sys
import types
from collections.abc import Callable
from typing import Any

from lit_pref.sandbox import peer, plain, program

TO_CHECKER, FROM_CHECKER = 3, 4


class _Printed:
    """Standard output whose text the checker is told."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def write(self, text: str) -> int:
        self.texts.append(text)
        return len(text)

    def flush(self) -> None:
        """Nothing is held back: the next answer takes it along."""

    def isatty(self) -> bool:
        return False


class Served(peer.Peer):
    """The program's end."""

    def __init__(self, module: types.ModuleType) -> None:
        def special(target: Any, name: str, /, *arguments: Any) -> Any:
            return getattr(type(target), name)(target, *arguments)

        actions: dict[str, Callable[..., Any]] = {
            "call": operator.call,
            "special": special,
            "getattr": getattr,
            "setattr": setattr,
            "delattr": delattr,
            "copy": copy.copy,
            "deepcopy": copy.deepcopy,
            "await": _run_coroutine,
            "names": self._names,
        }
        super().__init__(FROM_CHECKER, TO_CHECKER, 1, actions)
        self._module, self._printed = module, _Printed()
        self._told: dict[str, Any] = {}

    def _names(self, printed: bool, *names: str) -> None:
        """From now on tell what these names of the program mean, and what it prints."""
        self._told = dict.fromkeys(names, self)  # none of them means this
        if printed:
            sys.stdout = self._printed

    def news(self) -> list[list[Any]]:
        meant = vars(self._module)
        found = {name: meant[name] for name, told in self._told.items() if meant.get(name, self) is not told}
        self._told |= found
        encode, named = self.exchange.encode, plain.library_name
        news: list[list[Any]] = [["name", [name, encode(value), named(value)]] for name, value in found.items()]
        if self._printed.texts:
            news.append(["printed", "".join(self._printed.texts)])
            self._printed.texts.clear()
        return news

    def licensed(self, name: str, others: tuple[Any, ...]) -> bool:
        return True  # the test's objects have nothing to hide that they were not given

    def describe(self, error: BaseException) -> str:
        text = program.describe(error, error.__traceback__)
        if text.startswith(b"M"):
            raise self.end("M")
        return text[2:-1].decode("ascii")

    def foreign(self, error: BaseException, text: str, asked: tuple[Any, ...]) -> BaseException:
        return error

    def end(self, kind: str, text: str = "") -> BaseException:
        """The checker is gone, or is told the program's last words."""
        if kind in ("S", "E", "L", "M"):
            self.write(plain.dumps([kind, "" if kind == "L" else text]))
        os._exit(0)


def _run_coroutine(coroutine: Any) -> Any:
    import asyncio  # which few programs need

    return asyncio.run(coroutine)


def serve(source: str) -> None:
    """Run the source and answer until the checker is gone; returns when that is over."""
    plain.allow_long_integers()
    module = types.ModuleType("__main__")
    served = Served(module)
    code = program.compiled(source)
    if isinstance(code, bytes):
        raise served.end(code[:1].decode(), code[2:-1].decode("ascii"))
    sys.modules["__main__"] = module
    try:
        exec(code, module.__dict__)
    except BaseException as error:  # noqa: BLE001 - SystemExit and the like end the program too
        raise served.end("E", served.describe(error)) from None
    served.write(plain.dumps(["value", None, [], []]))
    while True:
        message = served.receive()
        if message is None:
            return
        served.answer(message[0], message[1:])
