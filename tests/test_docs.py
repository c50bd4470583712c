"""The documentation says what is there: links, names, commands and examples, without training anything."""

import ast
import importlib
import inspect
import json
import re
import runpy
import shlex
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import lightning
import torch
import yaml

import lit_pref
from lit_pref.cli import main
from lit_pref.cli.evaluate import evaluate
from lit_pref.cli.evaluate_reward import evaluate_reward
from lit_pref.cli.export import export
from lit_pref.cli.synthesize import synthesize
from lit_pref.cli.synthesize_code_pairs import code_pairs
from lit_pref.data.formats.pairs import PairKeys, to_pair
from lit_pref.data.reading.rows import Row
from lit_pref.evaluation.pair_accuracy import pair_figures
from lit_pref.losses import ChosenNLL, LikelihoodBudget
from lit_pref.metrics import preference_statistics, reward_statistics
from lit_pref.types import PairLogps

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "benchmarks/README.md",
    *sorted(ROOT.glob("docs/**/*.md")),
]
SOURCES = "\n".join(file.read_text() for file in sorted((ROOT / "lit_pref").rglob("*.py")))
# Names of other packages that the pages speak of.
FOREIGN = {
    "AutoModelForCausalLM", "AutoModelForSequenceClassification", "BatchSizeFinder", "Counters", "DataLoader",
    "Decimal", "DPOTrainer", "EarlyStopping", "FlexAttention", "Fraction", "IntEnum",
    "LightningDataModule", "LightningDataModules", "LightningModule", "LightningModules",
    "ModelCheckpoint", "None", "OrderedDicts", "PeftModel", "RewardTrainer", "StopIteration", "Trainer", "TypeError",
    "UUID", "ValueError",
}  # fmt: skip


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def blocks(page: Path, language: str = "") -> list[str]:
    """The fenced blocks of a language, "" for those without one."""
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", text_of(page), re.MULTILINE | re.DOTALL)
    return [block for named, block in fenced if named == language]


def prose(page: Path) -> str:
    return re.sub(r"^```.*?^```$", "", text_of(page), flags=re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """What GitHub makes of the headings."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    bare = (re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading) for heading in headings)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in bare}


def test_the_readme_is_short():
    assert len(text_of(ROOT / "README.md").splitlines()) <= 200


def test_relative_links_lead_somewhere():
    wrong = []
    for page in PAGES:
        for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
            path, _, anchor = link.partition("#")
            if link.startswith(("http:", "https:")):
                continue
            target = (page.parent / path).resolve() if path else page
            if not target.exists() or (anchor and anchor not in anchors(target)):
                wrong.append(f"{page.relative_to(ROOT)}: {link}")
    assert not wrong


def test_every_page_is_in_the_index():
    index = text_of(ROOT / "docs/README.md") + text_of(ROOT / "docs/methods/README.md")
    linked = set(re.findall(r"\]\(([^)#\s]+\.md)", index))
    pages = {page.relative_to(ROOT / "docs") for page in (ROOT / "docs").rglob("*.md")} - {Path("README.md")}
    missing = [str(page) for page in pages if str(page) not in linked and page.name not in linked]
    assert not missing


def test_named_classes_and_files_exist():
    wrong = []
    for page in PAGES:
        shown = re.findall(r"`([^`\n]+)`", prose(page)) + blocks(page)
        for word in (word.strip("`,;:.") for code in shown for word in re.split(r"[\s(){}\"'\[\]]+", code)):
            if re.fullmatch(r"([A-Z][a-z0-9]+){2,}|[A-Z]{2,}[a-z]\w*", word) and word not in FOREIGN:
                exists = f"class {word}(" in SOURCES or f"class {word}:" in SOURCES
            elif re.fullmatch(r"(lit_pref|configs|tests|benchmarks|notebooks|docs)/[\w./-]+", word):
                exists = (ROOT / word).exists()
            else:
                continue
            if not exists:
                wrong.append(f"{page.relative_to(ROOT)}: {word}")
    assert not wrong


def test_shown_rows_are_pairs():
    rows = re.findall(r"^\| .* \| `(\{.*?\})`(?: with .*)? \|$", text_of(ROOT / "docs/data.md"), re.MULTILINE)
    rows += [line for block in blocks(ROOT / "README.md", "json") for line in block.splitlines()]
    assert len(rows) >= 8
    for row in map(json.loads, rows):
        keys = PairKeys("question", "good", "bad") if "question" in row else None
        pair = to_pair(Row("the page", row), keys)
        assert pair.chosen != pair.rejected


def test_every_logged_name_is_explained():
    logps = PairLogps(*torch.tensor([[-1.0], [-2.0], [1.0], [1.0]]))
    made = {"grad_norm", "learning_rate", "num_tokens", "tokens_per_second", "loss", "entropy", "mean_token_accuracy"}
    made |= preference_statistics(logps, logps, 0.1).keys() | reward_statistics(logps.chosen, logps.rejected).keys()
    made |= {"rm_loss", "lm_loss"} | pair_figures(logps.chosen, logps.rejected).keys()
    for regularizer in (ChosenNLL(), LikelihoodBudget(0.5)):
        made |= regularizer.statistics(logps, logps).keys()
    rows = re.findall(r"^\| (`.*?) \|", text_of(ROOT / "docs/metrics.md"), re.MULTILINE)
    explained = {name for row in rows for name in re.findall(r"`([^`]+)`", row)}
    assert not made - explained
    # And what is explained is made somewhere: the name, or what stands before its number.
    stems = {re.sub(r"(?<=[@/])[kN]$", "", name) for name in explained if not name.endswith("/")}
    assert not [stem for stem in stems if f'"{stem}' not in SOURCES and f"{stem}" not in SOURCES]


# --- commands ---------------------------------------------------------------------------------------------------------


def commands() -> Iterator[tuple[str, list[str]]]:
    for page in PAGES:
        for block in blocks(page):
            for line in block.replace("\\\n", " ").splitlines():
                if line.startswith("lit-pref "):
                    yield f"{page.relative_to(ROOT)}: {line}", shlex.split(line, comments=True)[1:]


def merged(configs: list[Path]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for config in configs:
        for key, value in (yaml.safe_load(config.read_text()) or {}).items():
            both = isinstance(value, dict) and isinstance(found.get(key), dict)
            found[key] = {**found[key], **value} if both else value
    return found


def with_classes(config: dict[str, Any], options: list[str]) -> dict[str, Any]:
    """The configuration after the options that name a class, as `--model.objective SimPO`."""
    for option, value in pairwise(options):
        if option.startswith("--") and re.fullmatch(r"[\w.]*\b([A-Z][a-z0-9]*){2,}|[\w.]+\.[A-Z]\w+", value):
            *owners, last = option[2:].split(".")
            place = config
            for owner in owners:
                place = place.setdefault(owner, {})
                place = place.setdefault("init_args", {}) if "class_path" in place else place
            place[last] = {"class_path": value}
    return config


def named_class(name: str) -> Any:
    """A class of the kit by its bare name, as the command line finds it."""
    for module in ("modules", "datamodules", "losses", "tasks", "evaluation", "generation", "callbacks", "models"):
        found = getattr(importlib.import_module(f"lit_pref.{module}"), name.rsplit(".", 1)[-1], None)
        if found is not None:
            return found
    return None


def takes(owner: Any, path: list[str], config: Any) -> bool:
    """Whether an option path names arguments of a class or function, as far down as its class is known."""
    if owner is None or not path:
        return True
    if path[0] not in inspect.signature(owner).parameters:
        return False
    given = config.get(path[0]) if isinstance(config, dict) else None
    if isinstance(given, dict) and "class_path" in given:
        return takes(named_class(given["class_path"]), path[1:], given.get("init_args", {}))
    return takes(named_class(given) if isinstance(given, str) else None, path[1:], {})


FUNCTIONS = {"synthesize": (synthesize, code_pairs), "evaluate": (evaluate, evaluate_reward), "export": (export,)}
OF_TRAINER = {"config", "ckpt_path", "seed_everything", "run_name", "runs_folder", "project", "print_config"}


def wrong_option(command: str, path: list[str], config: dict[str, Any]) -> bool:
    if path[0] in ("config", "recipe", "help") or path[-1] == "help":
        return False
    if command in FUNCTIONS:
        return not any(takes(function, path, config) for function in FUNCTIONS[command])
    if path[0] == "trainer":
        return not takes(lightning.Trainer, path[1:], {})
    if path[0] in ("model", "data"):
        part = config.get(path[0], {})
        return not takes(named_class(part.get("class_path", "")), path[1:], part.get("init_args", {}))
    return path[0] not in OF_TRAINER


def test_wrong_options_are_found():
    config = merged([ROOT / "configs/dpo.yaml"])
    assert not wrong_option("fit", ["model", "objective", "beta"], config)
    assert wrong_option("fit", ["model", "objective", "alpha"], config)
    assert wrong_option("fit", ["data", "pears"], config)
    assert wrong_option("fit", ["trainer", "max_epoch"], config)
    assert wrong_option("evaluate", ["tasks"], {})


def test_shown_commands_name_what_there_is():
    wrong = []
    shown = list(commands())
    assert len(shown) > 20
    for line, given in shown:
        command, options = given[0], given[1:]
        named = [options[place + 1] for place, option in enumerate(options[:-1]) if option == "--config"]
        configs = [ROOT / name if name.endswith(".yaml") else ROOT / f"configs/{name}.yaml" for name in named]
        known = [config for config in configs if config.is_file()]
        if len(known) < len(configs) and "study" not in line and "CONFIG" not in line:
            wrong.append(f"{line}: no such configuration")
        config = with_classes(merged(known), options)
        wrong += [
            f"{line}: {option}"
            for option in options
            if option.startswith("--") and wrong_option(command, option[2:].split("=")[0].split("."), config)
        ]
        if command not in (*main._COMMANDS, "--help", "--version", "COMMAND"):
            wrong.append(f"{line}: no such command")
    assert not wrong


# --- examples ---------------------------------------------------------------------------------------------------------


def test_python_examples_call_what_there_is():
    """Every name of the kit that is imported is there, and takes the arguments that it is given."""
    wrong = []
    for page in PAGES:
        for block in blocks(page, "python"):
            names: dict[str, Any] = {}
            tree = ast.parse(block)
            for node in ast.walk(tree):
                if isinstance(node, ast.ImportFrom) and str(node.module).startswith("lit_pref"):
                    module = importlib.import_module(str(node.module))
                    names |= {alias.name: getattr(module, alias.name) for alias in node.names}
            for node in ast.walk(tree):
                known = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names
                if known and not any(isinstance(argument, ast.Starred) for argument in node.args):
                    keywords = {keyword.arg: None for keyword in node.keywords if keyword.arg}
                    try:
                        inspect.signature(names[node.func.id]).bind(*node.args, **keywords)
                    except TypeError as error:
                        wrong.append(f"{page.relative_to(ROOT)}: {ast.unparse(node)}: {error}")
    assert not wrong


def test_examples_of_ones_own_classes_run(tmp_path: Path):
    """The files of docs/extending.md, each a block that begins with its name, and the tests among them."""
    found = [block for block in blocks(ROOT / "docs/extending.md", "python") if re.match(r"# \w+\.py\n", block)]
    assert len(found) >= 4
    for block in found:
        file = tmp_path / block.split()[1]
        file.write_text(block)
        tests = [value for name, value in runpy.run_path(str(file)).items() if name.startswith("test_")]
        assert tests
        for test in tests:
            test()


def test_the_package_is_where_the_pages_look():
    assert Path(lit_pref.__file__).parent == ROOT / "lit_pref"
