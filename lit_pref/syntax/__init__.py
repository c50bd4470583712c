"""Source code by tree-sitter: the program in a completion, and mutants of a program."""

from lit_pref.syntax.extraction import Extraction, NoCodeError, extract_code, sanitize
from lit_pref.syntax.mutants import MUTANT_KINDS, Mutant, MutantKind, mutants

__all__ = ["MUTANT_KINDS", "Extraction", "Mutant", "MutantKind", "NoCodeError", "extract_code", "mutants", "sanitize"]
