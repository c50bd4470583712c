"""Where a source holds what looks like a key, a token or a password.

Formats are those that their issuers document or that GitHub's secret scanning and gitleaks publish; assignments are
judged by the value's entropy [D]. Only where a word begins like a token is it compared with the whole of its format.
Not covered: credentials without a known form that are assigned to innocent names, URLs with passwords in them, values
that are put together at run time.
"""

import math
import re
from collections import Counter
from typing import NamedTuple

import numpy as np

from lit_pref.syntax.words import Sieve, Words

_TOKENS: tuple[tuple[str, bytes], ...] = (  # (the three bytes that it begins with, all of it)
    ("PRI", rb"PRIVATE KEY(?: BLOCK)?-----\s*[\\nr\"'+\s]*[0-9A-Za-z+/]{16}"),  # PEM, with at least some of the key
    ("AKI", rb"AKIA[0-9A-Z]{16}\b"),  # AWS access keys, lasting and temporary
    ("ASI", rb"ASIA[0-9A-Z]{16}\b"),
    *((prefix, prefix.encode() + rb"_[0-9A-Za-z]{36}") for prefix in ("ghp", "gho", "ghu", "ghs", "ghr")),  # GitHub
    ("git", rb"github_pat_[0-9A-Za-z_]{82}"),
    ("glp", rb"glpat-[0-9A-Za-z_-]{20}"),  # GitLab
    ("xox", rb"xox[abeoprs]-[0-9A-Za-z-]{10,}"),  # Slack: tokens, and web hooks
    ("hoo", rb"hooks\.slack\.com/services/T\w+/B\w+/\w{16,}"),
    ("sk-", rb"sk-(?:proj-|svcacct-|admin-|ant-[a-z0-9]+-)?(?=[A-Za-z_-]*\d)[0-9A-Za-z_-]{20,}"),  # OpenAI, Anthropic
    ("sk_", rb"sk_live_[0-9A-Za-z]{16,}"),  # Stripe
    ("AIz", rb"AIza[0-9A-Za-z_-]{35}"),  # Google
    ("hf_", rb"hf_[0-9A-Za-z]{34}\b"),  # Hugging Face
    ("npm", rb"npm_[0-9A-Za-z]{36}\b"),
    ("pyp", rb"pypi-AgE[0-9A-Za-z_-]{50,}"),
    ("eyJ", rb"eyJ[0-9A-Za-z_-]{10,}\.eyJ[0-9A-Za-z_-]{10,}\.[0-9A-Za-z_-]{10,}"),  # JSON web tokens, RFC 7519
)
_FORMATS = {int.from_bytes(prefix.encode(), "little"): re.compile(whole) for prefix, whole in _TOKENS}
_PREFIXES = Sieve(np.array(list(_FORMATS), np.uint64))
_NAME = re.compile(rb"(?:password|passwd|secret|token|api[_-]?key|(?:access|secret|private)_?key|credentials?)$")
_LOWER = np.uint64(0x2020202020202020)
_ENDS = Sieve(  # of such names, in either case: their last four bytes
    np.array(
        [
            int.from_bytes(end.encode(), "little") | 0x20202020
            for end in ("word", "sswd", "cret", "oken", "ikey", "skey", "tkey", "ekey", "_key", "-key", "tial", "ials")
        ],
        np.uint64,
    )
)
_ASSIGNMENT = re.compile(  # after the name: name = "value", name: "value", "name": "value"
    rb"[\"']?[ \t]*(?::=|[:=])[ \t]*[bru]{0,2}([\"'])([^\s\"']{12,200})\1", re.IGNORECASE
)
_PLACEHOLDER = re.compile(rb"[<>{}$()%*\[\]]|x{4}|example|change|your|placeholder|dummy|sample|\.\.\.", re.IGNORECASE)
_ENTROPY = 3.5  # bits a character: over that of words, below that of random hexadecimal digits (up to 4)


class Span(NamedTuple):
    """Bytes from start to end."""

    start: int
    end: int


def credential_spans(source: bytes, words: Words) -> list[Span]:
    """Where credentials stand in a source whose words these are, ascending."""
    return sorted(_tokens(source, words) + _assignments(source, words))


def _tokens(source: bytes, words: Words) -> list[Span]:
    begins = words.heads & np.uint64(0xFFFFFF)
    spans = []
    for index in _PREFIXES.places(begins).tolist():
        whole = _FORMATS.get(int(begins[index]))
        found = whole and whole.match(source, int(words.starts[index]))
        if found:
            spans.append(Span(*found.span()))
    return spans


def _assignments(source: bytes, words: Words) -> list[Span]:
    spans = []
    for index in _ENDS.places((words.tails | _LOWER) >> np.uint64(32)).tolist():
        end = int(words.ends[index])
        found = _ASSIGNMENT.match(source, end)
        if found and _NAME.search(source[max(0, end - 16) : end].lower()) and _is_random(found[2]):
            spans.append(Span(int(words.starts[index]), found.end()))
    return spans


def _is_random(value: bytes) -> bool:
    if _PLACEHOLDER.search(value) or not re.search(rb"\d", value) or not re.search(rb"[A-Za-z]", value):
        return False
    counts = Counter(value).values()
    entropy = -sum(n / len(value) * math.log2(n / len(value)) for n in counts)
    return entropy >= _ENTROPY
