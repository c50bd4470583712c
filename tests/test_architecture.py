"""The house stands: a file imports only from layers below its own, and nothing from a sibling of its rank."""

import ast
import sys
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "lit_pref"
RANKS = [
    {"errors", "types", "machine"},
    {"storage", "sandbox", "syntax", "metrics", "losses"},
    {"models", "data"},
    {"tasks", "generation", "rewards"},
    {"sampling"},
    {"synthesis"},
    {"modules", "datamodules", "evaluation"},
    {"reports"},
    {"callbacks"},
    {"cli"},
]
RANK_OF = {layer: rank for rank, layers in enumerate(RANKS) for layer in layers}
LOOSE = 0  # the nouns may see each other; folders of one rank may not
FILES = sorted(file for file in PACKAGE.rglob("*.py") if file != PACKAGE / "__init__.py")


def every_import(source: str) -> set[str]:
    """Modules, and names of them, that a source imports anywhere, in functions too, dotted."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "a relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return names


def wrong_imports(layer: str, source: str) -> list[str]:
    """The layers that a file of `layer` imports and must not."""
    layers = {name.split(".")[1] for name in every_import(source) if name.startswith("lit_pref.")} - {layer}
    below = {each for each, rank in RANK_OF.items() if rank < RANK_OF[layer] or rank == RANK_OF[layer] == LOOSE}
    return sorted(layers - below)


def test_imports_go_down():
    assert len(FILES) > 150
    wrong = {
        str(file.relative_to(PACKAGE)): found
        for file in FILES
        if (found := wrong_imports(file.relative_to(PACKAGE).parts[0].removesuffix(".py"), file.read_text()))
    }
    assert not wrong


def test_the_rule_catches_imports_that_go_up_or_aside():
    assert wrong_imports("losses", "def f():\n    from lit_pref.modules import DPOModule") == ["modules"]
    assert wrong_imports("modules", "import lit_pref.datamodules.pairs") == ["datamodules"]
    assert wrong_imports("data", "from lit_pref.nowhere import x") == ["nowhere"]
    assert wrong_imports("data", "import torch\nfrom lit_pref.types import Split") == []
    assert wrong_imports("machine", "from lit_pref.errors import UserError") == []


def test_files_that_run_inside_the_isolation_stand_alone():
    """They start under `python -I -S`, without lit_pref or torch: what they import is the standard library's or a file
    beside them. For type checkers the same files are imported as modules of the package, which finds them here."""
    folder = PACKAGE / "sandbox"
    seen, new = set(), {"worker", "checker"}
    while new:
        name = new.pop()
        seen.add(name)
        names = every_import((folder / f"{name}.py").read_text())
        beside = {each.split(".")[2] for each in names if each.startswith("lit_pref.sandbox.")}
        roots = {each.split(".")[0] for each in names} - {"lit_pref"}
        outside = {each for each in names if each.startswith("lit_pref.") and each.split(".")[1] != "sandbox"}
        assert not outside | (roots - beside - sys.stdlib_module_names), f"sandbox/{name}.py"
        new |= beside - seen
    assert len(seen) > 10, "what the worker imports is found in another way than this test's"
