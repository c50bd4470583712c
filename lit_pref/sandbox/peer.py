"""One end of the conversation between a checker's process and a program's: questions and answers, a line of JSON each.

    [action, [argument, ...], {name: argument}, changes, dropped]      a question
    ["value", result, changes, dropped]                                an answer
    ["raised", error, text, changes, dropped]                          an answer
    [kind, text]                                                       the program's last words

Only one side runs at a time: who asks waits for the answer, and answers meanwhile what the other asks back (the test's
own functions, which a program was given, may be called while a question is open). `exchange.py` tells the values.
"""

import json
import os
from collections.abc import Callable
from typing import Any

from lit_pref.sandbox import exchange, mirrors, plain

MAX_NESTED = 100  # questions within questions
NO_ANSWER = "it wrote what is no answer into its channel"


class End(BaseException):
    """The other side said or did something after which nothing more can be asked; args: kind, text."""


class Peer(mirrors.Asker):
    """A connection.

    source, sink: descriptors.
    sign: as of `exchange.Exchange`.
    actions: what the other side may ask for, by name.
    """

    over = False

    def __init__(self, source: int, sink: int, sign: int, actions: dict[str, Callable[..., Any]]) -> None:
        self._source, self._sink, self._actions = source, sink, actions
        self.exchange = exchange.Exchange(sign)
        self._depth = 0
        self._unread = b""
        mirrors.use(self)

    # What differs between the two ends

    def end(self, kind: str, text: str = "") -> BaseException:
        """To raise where nothing more can be asked or answered."""
        raise NotImplementedError

    def describe(self, error: BaseException) -> str:
        """An error that leaves this side, for people."""
        raise NotImplementedError

    def foreign(self, error: BaseException, text: str, asked: tuple[Any, ...]) -> BaseException:
        """What to raise for an error of the other side, which was asked for this."""
        raise NotImplementedError

    def news(self) -> list[list[Any]]:
        """[name, content] of what a message tells beside the changes of shared values."""
        return []

    def hear(self, name: str, content: Any) -> None:
        """What the other side's message told."""
        raise ValueError("no news that are known here")

    # Questions

    def ask(self, action: str, /, *arguments: Any, **named: Any) -> Any:
        """The result. Raises what the other side raised."""
        if self.over:
            raise self.end("E", "it is over")
        if self._unread:
            raise self.end("E", "it answered before it was asked")
        encode = self.exchange.encode
        self._send(lambda: [action, [*map(encode, arguments)], {name: encode(each) for name, each in named.items()}])
        return self.result(action, *arguments)

    def result(self, *asked: Any) -> Any:
        """The answer to what was asked; what the other side asks meanwhile is answered."""
        while True:
            kind, *content = self.receive() or ("D",)
            if kind == "value":
                return self._understood(content, self._values)[0]
            if kind == "raised":
                error, text = self._understood(content, self._values)
                if not isinstance(error, BaseException) or type(text) is not str:
                    raise self.end("E", NO_ANSWER)
                try:
                    raise self.foreign(error, text, asked)
                finally:
                    del error  # else it would hold this frame, and the frame it
            self.answer(kind, content)

    def answer(self, action: Any, content: list[Any]) -> None:
        """Do what the other side asks for, and tell what came of it."""
        if type(action) is not str or action not in self._actions:
            text = content[0] if content and type(content[0]) is str else ""
            raise self.end(action if type(action) is str else "E", text)
        kind, result = self._outcome(action, *self._understood(content, self._question))
        told = [self.describe(result)] if kind == "raised" else []
        self._send(lambda: [kind, self.exchange.encode(result), *told])

    def _outcome(self, action: str, arguments: list[Any], named: dict[str, Any]) -> tuple[str, Any]:
        self._depth += 1
        try:
            if self._depth > MAX_NESTED:
                raise RecursionError("maximum recursion depth exceeded")
            return "value", self._actions[action](*arguments, **named)
        except End:
            raise
        except BaseException as error:  # noqa: BLE001 - whatever it is, the other side may expect it
            return "raised", error
        finally:
            self._depth -= 1

    # Lines

    def _send(self, content: Callable[[], list[Any]]) -> None:
        def line() -> bytes:
            message = content()
            changes = self.exchange.changes()
            return plain.dumps([*message, changes + self.news(), self.exchange.drop()])

        try:
            data = plain.with_room(line)
        except plain.TooLargeError as error:
            raise self.end("L", str(error)) from None
        self.write(data)

    def write(self, line: bytes) -> None:
        """All of it."""
        view = memoryview(line)
        try:
            while view:
                view = view[os.write(self._sink, view) :]
        except BrokenPipeError:
            raise self.end("D") from None

    def receive(self) -> list[Any] | None:
        """The next message; None where the other side is gone."""
        pieces = [self._unread]
        size = len(self._unread)
        while b"\n" not in pieces[-1]:
            piece = os.read(self._source, 1 << 16)
            size += len(piece)
            if not piece:
                return None
            if size > plain.MAX_BYTES:
                raise self.end("L")
            pieces.append(piece)
        line, _, self._unread = b"".join(pieces).partition(b"\n")
        try:
            message = plain.with_room(lambda: json.loads(line))
        except (ValueError, RecursionError):
            message = None
        if not isinstance(message, list) or not message:
            raise self.end("E", NO_ANSWER)
        return message

    def _values(self, parts: list[Any]) -> list[Any]:
        return [self.exchange.decode(each) for each in parts]

    def _question(self, parts: list[Any]) -> list[Any]:
        arguments, named = parts
        return [self._values(arguments), {name: self.exchange.decode(each) for name, each in named.items()}]

    def _understood(self, content: list[Any], read: Callable[[list[Any]], list[Any]]) -> list[Any]:
        def understand() -> list[Any]:
            *parts, changes, dropped = content
            values = read(parts)
            for what, told in changes:
                if type(what) is int:
                    self.exchange.change(what, told)
                else:
                    self.hear(what, told)
            self.exchange.forget(dropped)
            return values

        try:
            values: list[Any] = plain.with_room(understand)
        except Exception:  # noqa: BLE001 - there is no end of what a program can write in an answer's stead
            raise self.end("E", NO_ANSWER) from None
        return values
