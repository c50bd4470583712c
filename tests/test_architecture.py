"""The house stands: a file imports only from layers below its own, and nothing from a sibling of its rank."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "lit_pref"
RANKS = [
    {"errors", "types", "progress", "processors", "allocator", "hub"},
    {"sandbox", "metrics", "syntax"},
    {"losses", "models", "data"},
    {"tasks", "generation"},
    {"rewards", "synthesis"},
    {"modules", "datamodules", "evaluation"},
    {"callbacks", "reports"},
    {"cli", "training_cli", "synthesis_cli", "code_pairs_cli", "evaluate_cli", "reward_cli", "model_cli"}
    | {"checkpoints", "cli_errors", "function_cli"},
]
RANK_OF = {layer: rank for rank, layers in enumerate(RANKS) for layer in layers}
# The nouns and the command's own files may see each other; folders of one rank may not.
LOOSE = {0, len(RANKS) - 1}


def layer_of(file: Path) -> str:
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_layers(file: Path) -> set[str]:
    """Layers of lit_pref that a file imports anywhere, in functions too."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{file}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return {name.split(".")[1] for name in names if name.startswith("lit_pref.")}


FILES = sorted(file for file in PACKAGE.rglob("*.py") if file != PACKAGE / "__init__.py")


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_imports_go_down(file: Path) -> None:
    layer = layer_of(file)
    for imported in imported_layers(file) - {layer}:
        assert imported in RANK_OF, f"{file} imports {imported}, which has no rank"
        below = RANK_OF[imported] < RANK_OF[layer]
        loose = RANK_OF[imported] == RANK_OF[layer] and RANK_OF[layer] in LOOSE
        assert below or loose, f"{file}: {layer} (rank {RANK_OF[layer]}) imports {imported} (rank {RANK_OF[imported]})"


def test_every_layer_has_a_rank() -> None:
    layers = {layer_of(file) for file in FILES}
    assert layers <= RANK_OF.keys()


def test_the_rule_would_catch_an_upward_import() -> None:
    assert RANK_OF["modules"] > RANK_OF["losses"] > RANK_OF["metrics"] > RANK_OF["types"]
    assert RANK_OF["losses"] == RANK_OF["models"] and RANK_OF["losses"] not in LOOSE


def test_worker_files_of_the_sandbox_stand_alone() -> None:
    # They run under `python -I -S` inside the isolation, where lit_pref and torch are not to be had.
    for file in PACKAGE.glob("sandbox/_inside*.py"):
        assert not imported_layers(file)
