"""The grammars that source code is read by: file names, and which nodes of a tree are definitions, comments, imports.

A row of `GRAMMARS` is all that the kit knows of a language; node names are those of the grammars' `node-types.json`.
A grammar is loaded when it is first used. Not covered: declarations without a body, macros, enums that cannot have
methods, functions inside of functions (part of the outer one) and inside of expressions, other than what is assigned.
"""

import importlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Literal

from tree_sitter import Language, Query

LanguageName = Literal["python", "javascript", "typescript", "tsx", "java", "go", "rust", "c", "cpp"]


def _kinds(names: str) -> frozenset[str]:
    return frozenset(names.split())


@dataclass(frozen=True)
class Grammar:
    """How one language writes what a snippet is made of.

    module: the package of the grammar, and the function in it that gives the language.
    functions, classes: kinds of nodes that are definitions, where they have a body.
    holders: kinds that are a definition where this field of theirs holds one: `const area = () => 0`.
    wrappers: kinds that belong to the one definition in them: decorators, `export`, `template`.
    prefixes: kinds that belong to the definition after them: Rust's attributes.
    containers: other kinds in which definitions are looked for.
    unnamed_bodies: definitions whose body is not in the field `body`.
    names: the field that holds a definition's name, where that is not `name`.
    imports: kinds whose names `bindings`, a tree-sitter query, captures: `@name` is bound; `@path` binds its last part;
        `@any` binds names that only what is imported knows, as with `*` and `#include`.
    """

    module: str
    suffixes: tuple[str, ...]
    functions: frozenset[str]
    classes: frozenset[str]
    containers: frozenset[str]
    imports: frozenset[str]
    bindings: str
    loader: str = "language"
    wrappers: frozenset[str] = frozenset()
    prefixes: frozenset[str] = frozenset()
    holders: Mapping[str, str] = field(default_factory=dict)
    unnamed_bodies: frozenset[str] = frozenset()
    names: Mapping[str, str] = field(default_factory=dict)
    comments: frozenset[str] = frozenset({"comment"})


_REQUIRED = 'value: (call_expression function: (identifier) @_f (#eq? @_f "require"))'
_JAVASCRIPT = Grammar(
    module="tree_sitter_javascript",
    suffixes=(".js", ".jsx", ".mjs", ".cjs"),
    functions=_kinds(
        "function_declaration generator_function_declaration method_definition"
        " function_expression generator_function arrow_function"
    ),
    classes=_kinds("class_declaration class"),
    wrappers=_kinds("export_statement lexical_declaration variable_declaration expression_statement"),
    containers=_kinds("ERROR"),
    holders={"variable_declarator": "value", "field_definition": "value", "assignment_expression": "right"},
    names={"field_definition": "property", "assignment_expression": "left"},
    imports=_kinds("import_statement lexical_declaration variable_declaration"),
    bindings=f"""
        (import_clause (identifier) @name)
        (namespace_import (identifier) @name)
        (import_specifier !alias name: (identifier) @name)
        (import_specifier alias: (identifier) @name)
        (variable_declarator name: (identifier) @name {_REQUIRED})
        (variable_declarator name: (object_pattern (shorthand_property_identifier_pattern) @name) {_REQUIRED})
        (variable_declarator name: (object_pattern (pair_pattern value: (identifier) @name)) {_REQUIRED})
    """,
)
_TYPESCRIPT = replace(
    _JAVASCRIPT,
    module="tree_sitter_typescript",
    loader="language_typescript",
    suffixes=(".ts", ".mts", ".cts"),
    classes=_kinds("class_declaration abstract_class_declaration interface_declaration class"),
    wrappers=_JAVASCRIPT.wrappers | {"ambient_declaration"},
    containers=_kinds("ERROR internal_module module statement_block"),
    prefixes=_kinds("decorator"),
    holders={"variable_declarator": "value", "public_field_definition": "value", "assignment_expression": "right"},
    names={"assignment_expression": "left"},
    bindings=_JAVASCRIPT.bindings + "(import_require_clause (identifier) @name)",
)
_C = Grammar(
    module="tree_sitter_c",
    suffixes=(".c",),
    functions=_kinds("function_definition"),
    classes=_kinds("struct_specifier union_specifier"),
    containers=_kinds(
        "ERROR preproc_ifdef preproc_if preproc_else preproc_elif preproc_elifdef linkage_specification"
        " declaration_list"
    ),
    holders={"type_definition": "type"},
    names={"function_definition": "declarator", "type_definition": "declarator"},
    imports=_kinds("preproc_include"),
    bindings="(preproc_include) @any",
)

GRAMMARS: Mapping[LanguageName, Grammar] = {
    "python": Grammar(
        module="tree_sitter_python",
        suffixes=(".py",),
        functions=_kinds("function_definition"),
        classes=_kinds("class_definition"),
        wrappers=_kinds("decorated_definition"),
        containers=_kinds(
            "ERROR block if_statement elif_clause else_clause try_statement except_clause finally_clause with_statement"
        ),
        imports=_kinds("import_statement import_from_statement"),
        bindings="""
            (import_statement name: (dotted_name . (identifier) @name))
            (import_from_statement name: (dotted_name (identifier) @name))
            (aliased_import alias: (identifier) @name)
            (wildcard_import) @any
        """,
    ),
    "javascript": _JAVASCRIPT,
    "typescript": _TYPESCRIPT,
    "tsx": replace(_TYPESCRIPT, loader="language_tsx", suffixes=(".tsx",)),
    "java": Grammar(
        module="tree_sitter_java",
        suffixes=(".java",),
        functions=_kinds("method_declaration constructor_declaration compact_constructor_declaration"),
        classes=_kinds("class_declaration interface_declaration enum_declaration record_declaration"),
        containers=_kinds("ERROR enum_body_declarations"),
        imports=_kinds("import_declaration"),
        bindings="""
            (import_declaration (scoped_identifier name: (identifier) @name) .)
            (import_declaration (asterisk) @any)
        """,
        comments=_kinds("line_comment block_comment"),
    ),
    "go": Grammar(
        module="tree_sitter_go",
        suffixes=(".go",),
        functions=_kinds("function_declaration method_declaration"),
        classes=_kinds("struct_type interface_type"),
        wrappers=_kinds("type_declaration"),
        containers=_kinds("ERROR import_declaration import_spec_list"),
        holders={"type_spec": "type"},
        unnamed_bodies=_kinds("struct_type interface_type"),
        imports=_kinds("import_spec"),
        bindings="""
            (import_spec name: (package_identifier) @name)
            (import_spec !name path: (_) @path)
            (import_spec name: (dot) @any)
        """,
    ),
    "rust": Grammar(
        module="tree_sitter_rust",
        suffixes=(".rs",),
        functions=_kinds("function_item"),
        classes=_kinds("struct_item enum_item union_item trait_item impl_item"),
        containers=_kinds("ERROR mod_item declaration_list"),
        prefixes=_kinds("attribute_item"),
        names={"impl_item": "type"},
        imports=_kinds("use_declaration extern_crate_declaration"),
        bindings="""
            (use_declaration argument: (identifier) @name)
            (use_declaration argument: (scoped_identifier name: (identifier) @name))
            (use_list (identifier) @name)
            (use_list (scoped_identifier name: (identifier) @name))
            (scoped_use_list path: (identifier) @name list: (use_list (self)))
            (scoped_use_list path: (scoped_identifier name: (identifier) @name) list: (use_list (self)))
            (use_as_clause alias: (identifier) @name)
            (extern_crate_declaration !alias name: (identifier) @name)
            (extern_crate_declaration alias: (identifier) @name)
            (use_wildcard) @any
        """,
        comments=_kinds("line_comment block_comment"),
    ),
    "c": _C,
    "cpp": replace(
        _C,
        module="tree_sitter_cpp",
        suffixes=(".cpp", ".cc", ".cxx", ".hpp", ".hh", ".hxx", ".cu", ".cuh"),
        classes=_C.classes | {"class_specifier"},
        wrappers=_kinds("template_declaration"),
        containers=_C.containers | {"namespace_definition"},
        imports=_kinds("preproc_include using_declaration"),
        bindings="""
            (preproc_include) @any
            (using_declaration "namespace") @any
            (using_declaration (qualified_identifier name: (identifier) @name))
        """,
    ),
}
_BY_SUFFIX: Mapping[str, LanguageName] = {
    suffix: name for name, grammar in GRAMMARS.items() for suffix in grammar.suffixes
}
_CPP_HEADER = re.compile(
    rb"^[ \t]*(?:class\s+\w|template\s*<|namespace\s+\w|using\s+\w|(?:public|private|protected)\s*:)"
    rb"|\bstd::|\bconstexpr\b",
    re.MULTILINE,
)
HEADER = ".h"


def is_source(suffix: str) -> bool:
    """Whether a file of this suffix, in lower case and with its dot, is in one of the languages."""
    return suffix in _BY_SUFFIX or suffix == HEADER


def language_of(suffix: str, source: bytes) -> LanguageName:
    """The language of a file; a `.h` is C++ where it uses a word of C++ that is none of C's, else C.

    Raises KeyError for a suffix that `is_source` does not know.
    """
    if suffix == HEADER:
        return "cpp" if _CPP_HEADER.search(source) else "c"
    return _BY_SUFFIX[suffix]


@cache
def load(name: LanguageName) -> Language:
    grammar = GRAMMARS[name]
    return Language(getattr(importlib.import_module(grammar.module), grammar.loader)())


@cache
def binding_query(name: LanguageName) -> Query:
    return Query(load(name), GRAMMARS[name].bindings)
