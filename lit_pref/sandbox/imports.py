"""Which modules programs find loaded. Each shared library more makes every fork slower: hashlib and decimal cost all
programs more than they save the few that use them.

Where a program may open no file, the modules that it names are loaded in its process before it is locked; of the
standard library alone, whose code is trusted. Not covered there: modules that it names at run time only.
"""

import contextlib
import importlib
import re
import sys

PRELOADED = (
    "bisect collections copy dataclasses functools heapq itertools math operator random re string textwrap types typing"
)
# What the standard library loads on its way, not at import.
_LATER = {
    "concurrent.futures": ("concurrent.futures.thread",),
    "datetime": ("_strptime",),
    "time": ("_strptime",),
    "traceback": ("linecache", "tokenize"),
    "unittest": ("unittest.mock", "unittest.util"),
    "threading": ("_weakrefset",),
}
_ENCODINGS = ("encodings.ascii", "encodings.latin_1", "encodings.idna", "encodings.utf_16", "encodings.utf_8_sig")
# They act when they are imported, open windows, or are no libraries.
_NEVER = {"antigravity", "this", "idlelib", "turtle", "turtledemo", "tkinter", "test", "lib2to3", "ensurepip", "venv"}
_STATEMENT = re.compile(r"\b(?:from|import)[ \t]+([\w.]+(?:[ \t]*(?:as[ \t]+\w+)?[ \t]*,[ \t]*[\w.]+)*)")
_FROM = re.compile(r"\bfrom[ \t]+([\w.]+)[ \t]+import[ \t]+\(?([\w \t,]+)")


def preload(no_files: bool) -> None:
    """In the worker, once. no_files: programs will find nothing else."""
    for name in (*PRELOADED.split(), *(_ENCODINGS if no_files else ())):
        importlib.import_module(name)


def load_named(source: str) -> None:
    """Load what modules of the standard library the source names in its imports."""
    wanted = [name for names in _STATEMENT.findall(source) for name in re.findall(r"(?<!\bas )\b[\w.]+", names)]
    wanted += [f"{module}.{name}" for module, names in _FROM.findall(source) for name in re.findall(r"\w+", names)]
    for name in dict.fromkeys(wanted):
        root = name.partition(".")[0]
        if root in sys.stdlib_module_names and root not in _NEVER and "__main__" not in name:
            for module in (name, *_LATER.get(name, ())):
                # A name in a module, or a module of another system, which may raise anything.
                with contextlib.suppress(Exception):
                    importlib.import_module(module)
