"""Malformed commands, made at random from the options that the parsers have: each is answered in a sentence, or works.

A tenth of them runs with the suite, all with `make fuzz`. A command that fails is printed as it can be pasted, with the
configuration file that was damaged for it; `world` below makes the other files.
"""

import contextlib
import io
import json
import os
import random
import re
import shlex
import signal
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from lit_pref.cli.main import main

ROUNDS = int(os.environ.get("LIT_PREF_FUZZ", "1"))
COMMANDS = 10  # of one test; three tests a round
SECONDS = 60  # of processor time, which a busy machine does not use up; ten times that of waiting

CONFIGS = {
    "fit": """\
seed_everything: 1
model:
  class_path: DPOModule
  init_args:
    policy: embedded:coder-weak
    objective: {class_path: DPO, init_args: {beta: 0.1}}
    regularizer: {class_path: LikelihoodBudget, init_args: {budget: 1.0}}
    adapter: {class_path: LoRA, init_args: {r: 2}}
    optimizer: {class_path: torch.optim.AdamW, init_args: {lr: 1.0e-4}}
    scheduler: {class_path: WarmupCosine, init_args: {warmup: 0.1}}
data:
  class_path: PairsDataModule
  init_args: {train: pairs.jsonl, validation_size: 0.2, batch_size: 4}
trainer:
  max_epochs: 1
  max_steps: 1
  callbacks:
    - class_path: BeforeAfter
      init_args: {evaluations: [{class_path: PairAccuracy}]}
""",
    "evaluate": """\
task: {class_path: CodeTask}
samples_file: samples.jsonl
problems: 2
output: out
""",
    "evaluate policy": """\
task: {class_path: CodeTask}
policy: embedded:coder-weak
problems: 2
sampling: {temperature: 0.0, max_new_tokens: 4}
output: out
""",
    "evaluate reward": """\
recipe: reward
evaluations: [{class_path: PairAccuracy, init_args: {pairs: pairs.jsonl}}]
reward_model: embedded:coder-weak
output: out
""",
    "synthesize": """\
output: out
policy: embedded:coder-weak
task: {class_path: CodeTask}
problems: 2
samples: 2
sampling: {max_new_tokens: 4}
""",
    "synthesize code_pairs": """\
recipe: code_pairs
output: out
source: {path: source, limit: 2}
describer: {descriptions: docstring, summary: true}
completions: {style: signature, sampling: {max_new_tokens: 4}}
strong: embedded:coder-weak
""",
    "export": "checkpoint: foreign.ckpt\noutput: out\n",
}
# As often as there is something to go wrong.
COMMON = ["fit"] * 4 + ["evaluate", "evaluate policy", "evaluate reward", "synthesize", "synthesize code_pairs"] * 2
ODD = [
    *("-1", "0", "-5", "3", "1.5", "1e9", ".nan", ".inf", "-.inf", "nan", "true", "null", "", " ", "nope", "a b", "é"),
    *("[]", "{}", "[1, 2]", "[[]]", "{a: 1}", "[nope]", "{class_path: nope}", "{class_path: DPO, init_args: 3}", "{"),
    *("1000000000000", "2020-01-01", "'", "%", "\\", "*a", "!!python/name:os.system", "x" * 300, "a=b", "a: b", "-"),
    *("pairs.jsonl", "empty.jsonl", "bad.jsonl", "folder", "none.jsonl", "pairs.jsonl/x", "foreign.ckpt", "no_weights"),
    *("DPOModule", "PairsDataModule", "HumanEval", "DPOO", "torch.nn.Linear", "os.system", "torch.optim", "nope.Nope"),
    *("lit_pref.modules.DPOModul", "Callback", "EarlyStopping", "IsolatedSandbox", "embedded:coda", "00:00:00:01"),
]
# Where a larger number is right and would take long, or start processes.
SIZES = re.compile(
    r"problems|samples|texts|tokens|vocab_size|workers|devices|num_nodes|concurrency|fast_dev_run|limit|lines"
)
STARTS_PROCESSES = re.compile(r"strategy|runner|devices|num_nodes|workers")
SPEAKS_PYTHON = re.compile(
    r"Traceback|NoneType|object at 0x|__\w+__|(?:keyword|positional) argument|KeyError|AttributeError|TypeError|Errno|"
    r"<class|typing\.|Namespace\(|NestedArg|Parser key|not a valid subclass|Subtypes|has no attribute|unhashable|"
    r"not callable|not iterable|not subscriptable|unsupported operand|not supported between|_cli\.py|\x02|\x03"
)


def write_rows(name: str, rows: list[Any]) -> None:
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with files of all kinds, and nothing that outlives a test."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("LIT_PREF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(sys, "argv", ["lit-pref"])
    pairs = [{"prompt": f"def f{i}(x):\n", "chosen": f"    return x + {i}\n", "rejected": "    x\n"} for i in range(12)]
    write_rows("pairs.jsonl", pairs)
    write_rows("empty.jsonl", [])
    Path("bad.jsonl").write_text("{\n")
    for folder in ("folder", "no_weights", "source"):
        Path(folder).mkdir()
    Path("no_weights/config.json").write_text('{"model_type": "llama"}')
    Path("source/a.py").write_text('def f(x):\n    """Return x plus one, always."""\n    y = x + 1\n    return y\n')
    torch.save({"state_dict": {}}, "foreign.ckpt")
    from lit_pref.tasks import CodeTask

    problems = CodeTask().problems("test", 2, 0)
    write_rows("samples.jsonl", [{"task_id": problem.id, "completion": problem.reference} for problem in problems])
    for name, text in CONFIGS.items():
        Path(f"{name.replace(' ', '_')}.yaml").write_text(text)
    yield tmp_path
    torch.use_deterministic_algorithms(False)
    torch.autograd.set_detect_anomaly(False)
    torch.backends.cudnn.benchmark = False
    for name in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS"):
        os.environ.pop(name, None)


class _TooLongError(BaseException):
    """No exception that a command might catch."""


def answer(arguments: list[str]) -> tuple[int, str]:
    """Exit status and what was said to stderr."""

    def late(*_: object) -> None:
        raise _TooLongError(f"no end after {SECONDS} s")

    error, status = io.StringIO(), 0
    before = [(each, signal.signal(each, late)) for each in (signal.SIGPROF, signal.SIGALRM)]
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    signal.alarm(10 * SECONDS)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(error), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            main(arguments)
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else 1
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.alarm(0)
        for each, handler in before:
            signal.signal(each, handler)
    return status, error.getvalue()


def complaint(arguments: list[str]) -> str | None:
    """What is wrong with the answer to a command; None where it is a sentence, or the command was right."""
    try:
        status, said = answer(arguments)
    except (Exception, _TooLongError) as error:  # noqa: BLE001 - whatever a user would see as a traceback
        return f"{type(error).__name__}: {str(error)[:300]}"
    if status == 0:
        return None
    _, found, message = said.rpartition("lit-pref: error: ")
    if status != 2 or not found:
        return f"exit status {status}: {said[-300:]}"
    if message.count("\n") > 3 or len(message) > 1000:
        return f"{len(message.splitlines())} lines: {message[:600]}"
    return f"speaks Python: {message.strip()}" if SPEAKS_PYTHON.search(message) else None


# --- making them ------------------------------------------------------------------------------------------------------


def named(value: Any, at: str = "") -> Iterator[str]:
    """Options of a resolved configuration."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key in ("class_path", "init_args"):  # no part of an option's name
                yield from named(inner, at)
            else:
                yield f"{at}{key}"
                yield from named(inner, f"{at}{key}.")


def options_of(name: str) -> list[str]:
    """All options that a command has with its configuration, as the parser itself prints them."""
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown), contextlib.suppress(SystemExit), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        main([*base(name), "--print_config"])
    return sorted(set(named(yaml.safe_load(shown.getvalue()))))


def base(name: str) -> list[str]:
    return [name.split()[0], "--config", f"{name.replace(' ', '_')}.yaml"]


def odd_value(option: str, rng: random.Random) -> str:
    while True:
        value = rng.choice(ODD)
        if SIZES.search(option) and re.fullmatch(r"\+?[\d.e]+|true|\.inf|\[1, 2\]", value):
            continue
        if STARTS_PROCESSES.search(option) and value not in ("-1", "-5", "nope", "[]", "null", "", ".nan", "DPOO"):
            continue
        return value


def misspelt(word: str, rng: random.Random) -> str:
    at = rng.randrange(len(word))
    return rng.choice([word[:at] + word[at + 1 :], word[:at] + word[at] * 2 + word[at + 1 :], word[::-1], word + "s"])


def damaged(text: str, rng: random.Random) -> str:
    """A configuration file with a key missing, doubled, renamed or of an odd value, or with broken text."""
    lines = text.splitlines(keepends=True)
    at = rng.randrange(len(lines))
    line = lines[at]
    kind = rng.randrange(6)
    if kind == 0 and not SIZES.search(line):
        lines[at] = ""
    elif kind == 1:
        lines[at] = line.replace(":", rng.choice(["", " ", "::", ": [", ": {", "=", ":\t"]), 1)
    elif kind == 2:
        lines[at] = f"{line.partition(':')[0]}: {odd_value(line, rng)}\n"
    elif kind == 3:
        lines[at] = re.sub(r"\w+", lambda word: misspelt(word[0], rng), line, count=1)
    elif kind == 4:
        lines[at] = line.replace("  ", rng.choice(["", " ", "   "]), 1) or " "
    else:
        character = rng.choice(["\x00", "\udcff", "\u2028", "&a ", "*b ", "}", '"', "- ", "#"])
        column = rng.randrange(len(line))
        lines[at] = line[:column] + character + line[column:]
    return "".join(lines)


def malformed(rng: random.Random, options: dict[str, list[str]]) -> list[str]:
    """One command; where its configuration is damaged, `damaged.yaml` holds that."""
    name = rng.choice([*COMMON, "export"])
    command, option = base(name), rng.choice(options[name])
    if name == "fit" and rng.random() < 0.1:
        command[0] = rng.choice(["validate", "test", "predict"])
    kind = rng.randrange(12)
    if kind < 5:
        value = odd_value(option, rng)
        return [*command, *rng.choice([[f"--{option}", value], [f"--{option}={value}"]])]
    if kind == 5:
        return [*command, f"--{misspelt(option, rng)}", "3"]
    if kind == 6:
        other = rng.choice(sorted(options))
        return [*command, *rng.choice([["--config", base(other)[2]], [f"--{rng.choice(options[other])}", "nope"]])]
    if kind == 7:
        return rng.choice([[*command, f"--{option}"], [*command, option], [*command, f"-{option[0]}"], command[:1]])
    if kind == 8:
        broken = rng.choice(["", "none.yaml", "folder", "pairs.jsonl", "foreign.ckpt", "empty.jsonl", "{", "a: [", "3"])
        return [*rng.choice([command, command[:1]]), f"--config={broken}"]
    Path("damaged.yaml").write_bytes(damaged(CONFIGS[name], rng).encode("utf-8", "surrogateescape"))
    return [*command[:2], "damaged.yaml", *command[3:]]


@pytest.mark.parametrize("seed", range(3 * ROUNDS))
def test_a_malformed_command_gets_a_sentence(seed: int, world: Path) -> None:
    rng = random.Random(seed)
    options = {name: options_of(name) for name in CONFIGS}
    failures = []
    for _ in range(COMMANDS):
        Path("damaged.yaml").unlink(missing_ok=True)
        arguments = malformed(rng, options)
        if said := complaint(arguments):
            file = Path("damaged.yaml")
            shown = f"cat > damaged.yaml <<'END'\n{file.read_bytes()!r}\nEND\n" if file.exists() else ""
            failures.append(f"{shown}lit-pref {shlex.join(arguments)}\n    {said}")
    assert not failures, "\n\n" + "\n\n".join(failures)


def test_the_oracle_sees_what_it_should(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert complaint([*base("evaluate"), "--problems", "nope"]) is None
    assert complaint(base("evaluate")) is None
    for broken, expected in (("raise KeyError('a')", "KeyError"), ("raise SystemExit(1)", "exit status 1")):
        monkeypatch.setattr("lit_pref.cli.main._run", lambda *_, broken=broken: exec(broken))
        assert expected in (complaint(["evaluate"]) or "")
    speaks = "from lit_pref.errors import UserError; raise UserError(\"'NoneType' object has no attribute 'x'\")"
    monkeypatch.setattr("lit_pref.cli.main._run", lambda *_: exec(speaks))
    assert "speaks Python" in (complaint(["evaluate"]) or "")
