"""What runs in a program's own process: its source, then its cases; results leave as lines of text.

    B              the program's source is about to run
    R              ... it ran to its end, the calls come next
    V <literal>    the canonical text of a call's result        X <text>   the result is no plain literal
    L              the result is too long                       C          the call itself is no expression
    E <text>       an exception                                 M          out of memory
    S <text>       the source does not compile                  N <proof>  the source ran to its end (no cases)

A program whose output counts writes B, and E, M or S where it fails; it is judged by what it printed.
A program may write such lines too, which gains it nothing: to pass it would have to know what is expected, which
never enters its process. A program without cases passes by the proof line, random for each program, which is out of
reach of its frames, modules and garbage collector. (Native code that reads its own memory could still find it: where
programs may be hostile, give cases.)
"""

import _thread
import gc
import operator
import os
import sys
import types
import weakref
from _queue import SimpleQueue  # `queue` would load threading into every program
from collections.abc import Callable, Iterator, Sequence

from lit_pref.sandbox import literal

CHANNEL = 3  # the file descriptor that lines go to
SOURCE_NAME = "<program>"
STACK_BYTES = 8 << 20  # of the thread that a program runs in; the system's default differs by libc and ulimit


def _line(kind: str, text: str) -> bytes:
    return f"{kind} {' '.join(text.split())}\n".encode("ascii", "backslashreplace")


def describe(error: BaseException, trace: types.TracebackType | None) -> bytes:
    """The exception, and the last line of the program that it passed."""
    if isinstance(error, MemoryError):
        return b"M\n"
    where = ""
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == SOURCE_NAME:
            where = f" (line {trace.tb_lineno})"
        trace = trace.tb_next
    try:
        text = str(error)[:200]
    except BaseException:  # noqa: BLE001 - the exception's class, and so its text, may be the program's own
        text = "<no text>"
    name = type(error).__name__
    return _line("E", (f"{name}: {text}" if text else name) + where)


def _report_uncaught(uncaught: "sys.UnraisableHookArgs") -> None:
    """Report the exception that ended the program; those that its destructors drop are its own affair."""
    if "in thread started by" in (uncaught.err_msg or "") and uncaught.exc_value is not None:
        os.write(CHANNEL, describe(uncaught.exc_value, uncaught.exc_traceback))


def _evaluate(
    max_bytes: int, calls: Sequence[str], namespace: dict[str, object], write: Callable[[object], str]
) -> None:
    """Write one line for each call's result, up to the first that has none."""
    os.write(CHANNEL, b"R\n")
    for call in calls:
        try:
            code = compile(call, "<case>", "eval", dont_inherit=True)
        except (SyntaxError, ValueError):
            os.write(CHANNEL, b"C\n")
            return
        try:
            text = write(eval(code, namespace))
        except literal.NotPlainError as error:
            os.write(CHANNEL, _line("X", str(error)))
            return
        except BaseException as error:  # noqa: BLE001 - SystemExit and the like end the program too
            os.write(CHANNEL, describe(error, error.__traceback__))
            return
        if len(text) > max_bytes:
            os.write(CHANNEL, b"L\n")
            return
        os.write(CHANNEL, f"V {text}\n".encode("ascii"))


def compiled(source: str) -> types.CodeType | bytes:
    """The program's code, or the line that says why there is none."""
    try:
        return compile(source, SOURCE_NAME, "exec", dont_inherit=True)
    except MemoryError:
        return b"M\n"
    except SyntaxError as error:
        return _line("S", f"{type(error).__name__}: {error.msg} (line {error.lineno})")
    except (ValueError, RecursionError, OverflowError) as error:  # null bytes, surrogates, depth
        return _line("S", f"{type(error).__name__}: {error}")


def _new_main() -> dict[str, object]:
    """The names of a new module `__main__`."""
    module = sys.modules["__main__"] = types.ModuleType("__main__")
    return module.__dict__


def run_program(
    source: str, calls: list[str], proof: list[bytes], max_result_bytes: int, write: Callable[[object], str]
) -> None:
    """Run the source, then evaluate the calls or, where there are none, write the proof; returns when that is over.

    proof: holds the proof line, and is emptied before the program starts.
    write: a result's text.
    """
    code, names = compiled(source), _new_main()
    if isinstance(code, bytes):
        os.write(CHANNEL, code)
        return
    if not calls:
        _run_to_proof(code, names, proof)
        return
    proof.clear()
    try:
        os.write(CHANNEL, b"B\n")
        exec(code, names)
    except BaseException as error:  # noqa: BLE001 - SystemExit and the like end the program too
        os.write(CHANNEL, describe(error, error.__traceback__))
    else:
        _evaluate(max_result_bytes, calls, names, write)


def run_for_output(source: str) -> None:
    """Run a program whose output counts: it may exit, and threads that it waits for at its end are waited for."""
    code, names = compiled(source), _new_main()
    if isinstance(code, bytes):
        os.write(CHANNEL, code)
        return
    os.write(CHANNEL, b"B\n")
    try:
        exec(code, names)
    except SystemExit as end:
        if end.code not in (None, 0):
            os.write(CHANNEL, describe(end, end.__traceback__))
    except BaseException as error:  # noqa: BLE001 - KeyboardInterrupt and the like end the program too
        os.write(CHANNEL, describe(error, error.__traceback__))
    if "threading" in sys.modules:
        threading = sys.modules["threading"]
        for thread in threading.enumerate():
            if thread is not threading.main_thread() and not thread.daemon:
                thread.join()
    sys.stdout.flush()


def _run_to_proof(code: types.CodeType, names: dict[str, object], proof: list[bytes]) -> None:
    """Run a program that nobody checks but itself, so that the proof is written only if it got to its end.

    It runs in a thread whose bottom is C code: `exec`, and only where that returned, the writing. No Python frame
    lies beneath the program, and what the thread was given is hidden from the garbage collector's lists.
    """
    sys.unraisablehook = _report_uncaught
    over: SimpleQueue[object] = SimpleQueue()
    sentinel: set[object] = set()  # dies with the thread's arguments, however the thread ends
    watch = weakref.ref(sentinel, over.put)
    # The proof is never a variable: the program's thread can see this frame (sys._current_frames), but not what
    # `arguments` held before it was emptied.
    arguments = [_steps(code, names, proof[0], sentinel)]
    proof.clear()
    del sentinel, code
    gc.freeze()  # hides the arguments from gc.get_objects and gc.get_referrers ...
    del gc.unfreeze  # ... for good
    _thread.stack_size(STACK_BYTES)
    _thread.start_new_thread(list, arguments.pop())
    over.get()
    del watch


def _steps(code: types.CodeType, names: dict[str, object], proof: bytes, sentinel: object) -> tuple[Iterator[object]]:
    """`list`'s argument: announce the source, execute it, write the proof; each only if the one before returned."""
    functions, firsts, seconds = (os.write, exec, os.write), (CHANNEL, code, CHANNEL), (b"B\n", names, proof, sentinel)
    return (map(operator.call, functions, firsts, seconds),)  # type: ignore[arg-type]
