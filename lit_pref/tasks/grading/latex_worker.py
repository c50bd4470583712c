"""A process that compares pieces of LaTeX with math-verify, one pair a line: `["\\\\frac12", "0.5"]` gives `1`.

Started as a script by `latex_equality.py`, which holds the clock; only memory is limited here. What is compared was
written by a model: `9^{9^{9^9}}` would keep it busy for good.
"""

import json
import logging
import os
import resource
import sys

from math_verify import parse, verify

_MEMORY = 4 * 2**30  # bytes of address space; sympy itself takes less than 1


def equal(expected: str, answer: str) -> bool:
    """Whether math-verify shows the answer to be what is expected; in a box, which is the form that it reads best."""
    gold, found = (parse(f"\\boxed{{{latex}}}", parsing_timeout=None) for latex in (expected, answer))
    return bool(verify(gold, found, timeout_seconds=None))


def main() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    logging.disable()  # math-verify warns that its own clock is off
    replies = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # whatever a library prints is no reply
    replies.write(b"+\n")
    for line in sys.stdin:
        replies.write(b"1\n" if equal(*json.loads(line)) else b"0\n")


if __name__ == "__main__":
    main()
