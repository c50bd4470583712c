"""What the two ends of a worker's pipes agree on. Standard library only: both sides import it, each in its own way."""

import struct

CASES, EQUALITIES, OUTPUT, CHECK = range(4)  # kinds of request, each JSON in two parts:
#            for the program's process          for its checker's
#   CASES    [source, [call, ...]]              -
#   EQUALITIES  the same; texts are `literal.loose`
#   OUTPUT   [source, standard input]           -
#   CHECK    [source]                           [code, context, [entry point, ...]]
REQUEST_HEADER = struct.Struct("<BII")  # kind, bytes of each part
REPLY_HEADER = struct.Struct("<IIBiB")  # payload and output bytes, a reason below, wait status, 1 if the end is proven
ENDED, TIMEOUT, OVERFLOW, REFUSED, READY = range(5)
