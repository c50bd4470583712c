"""What the two ends of a worker's pipes agree on. Standard library only: both sides import it, each in its own way."""

import struct
import sys
from collections.abc import Sequence

CASES, EQUALITIES, OUTPUT, CHECK = range(4)  # kinds of request, each texts in two parts:
#               for the program's process          for its checker's
#   CASES       source, call, ...                  -
#   EQUALITIES  the same; texts are `literal.loose`
#   OUTPUT      source, standard input             -
#   CHECK       source                             code, context, licence, imports, entry point, ...
REQUEST_HEADER = struct.Struct("<BII")  # kind, bytes of each part
REPLY_HEADER = struct.Struct("<IIBiB")  # payload and output bytes, a reason below, wait status, 1 if the end is proven
# Reasons. STARVED: the machine was too busy to run it; FAILED: it could not be started, why is told as its output.
ENDED, TIMEOUT, OVERFLOW, REFUSED, READY, STARVED, FAILED = range(7)
STARVED_TIMES = 30  # the limit of its own time, in wall time: the machine is that busy, or its accounting fails
VALUE_LIBRARIES = ("datetime", "decimal", "fractions", "uuid")  # whose values cross whole between the two processes


def pack(texts: Sequence[str]) -> bytes:
    """Texts as one part of a request; not as JSON, whose first use takes a new process 0.2 ms."""
    encoded = [text.encode("utf-8", "surrogatepass") for text in texts]
    return struct.pack(f"={len(encoded) + 1}I", len(encoded), *map(len, encoded)) + b"".join(encoded)


def unpack(part: bytes) -> list[str]:
    """The texts that were packed."""
    count = int.from_bytes(part[:4], sys.byteorder)
    texts, at = [], 4 * (count + 1)
    for size in memoryview(part)[4:at].cast("I"):
        texts.append(part[at : at + size].decode("utf-8", "surrogatepass"))
        at += size
    return texts


def out_of_time(own: float, wall: float, limit: float) -> int | None:
    """The reason to end a request, for how long it has taken (`stopwatch.py`): only its own time is its fault."""
    if own >= limit:
        return TIMEOUT
    return STARVED if wall >= limit * STARVED_TIMES else None
