"""What the two ends of a worker's pipes agree on. Standard library only: both sides import it, each in its own way."""

import struct

REQUEST_SIZE = struct.Struct("<I")  # then JSON: [source, [call, ...]]
REPLY_HEADER = struct.Struct("<IBiB")  # payload bytes, one of the reasons below, wait status, 1 if the end is proven
ENDED, TIMEOUT, OVERFLOW, REFUSED, READY = range(5)
