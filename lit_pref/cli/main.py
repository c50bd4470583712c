"""The `lit-pref` command: what it offers, and how it answers mistakes.

Only the standard library is imported before a subcommand runs, so that help is instant.
"""

import sys
from collections.abc import Sequence
from errno import EACCES, EDQUOT, EEXIST, EISDIR, ELOOP, ENAMETOOLONG, ENOSPC, ENOTDIR, EPERM, EROFS

HELP = """\
lit-pref: preference learning, from raw material to an aligned policy.

usage: lit-pref COMMAND [options]

commands
  init       a study of your own, with an objective to change:
                                            lit-pref init my-study
  fit        train a method on data:        lit-pref fit --config dpo_budget
  validate   its validation figures:        lit-pref validate --config CONFIG --ckpt_path CHECKPOINT
  test       its test figures:              lit-pref test --config CONFIG --ckpt_path CHECKPOINT
  predict    the figures of each test item, as predictions.parquet:
                                            lit-pref predict --config CONFIG --ckpt_path CHECKPOINT
  synthesize problems with tests -> samples -> preference pairs, or source code -> code pairs; resumable:
                                            lit-pref synthesize --config synthesize/execution_pairs
                                            lit-pref synthesize --config synthesize/code_pairs
  evaluate   pass@k on a benchmark:         lit-pref evaluate --task HumanEval --policy my-model
             a reward model:                lit-pref evaluate --config evaluate/best_of_n
  export     a checkpoint as a model folder that transformers opens:
                                            lit-pref export --checkpoint runs/.../last.ckpt --output my-model

modules      DPOModule, KTOModule, SFTModule, PMPretrainModule, RewardFinetuneModule
data         ExecutionPairsDataModule, PassingSamplesDataModule, CodePairsDataModule, TaskPairsDataModule,
             ExecutionLabelsDataModule, PairsDataModule, DemonstrationsDataModule, LabelledDataModule;
             their arguments: Samples, SplitNames, Loading
objectives   DPO, IPO, SimPO, Hinge, DPOPositive
regularizers ChosenNLL, LikelihoodBudget
reward loss  BradleyTerry
adapters     LoRA
tasks        CodeTask, ReasoningTask, DeductionTask, Mixture, HumanEval, HumanEvalPlus, MBPP, MBPPPlus,
             CustomCodeTask (your own), DoctestTask (a Python package's functions), GSM8K, MATH;
             of pairs or options: MathShepherd, GSM8KSolutions, ReClor, LogiQA2
evaluations  PassAtK, PairAccuracy, BestOfN, MultipleChoiceAccuracy
callbacks    BeforeAfter, LastCheckpoint, GeometricCheckpoints, DecayFromCheckpoint
generators   OpenAIGenerator (any OpenAI-compatible server), VLLMGenerator
policies     embedded:base, embedded:coder, embedded:coder-strong, embedded:coder-weak, a folder, a .gguf file, a hub id

CONFIG is a YAML file, or one of the kit's own by its name: dpo_budget, data/pairs, paper/code_dpo_deepseek.
A class of your own is named by its module in the working folder: --model.objective my_objectives.Mine
Every constructor argument is an option and a YAML key; a later --config or option wins:
  lit-pref fit --config dpo_budget --model.objective.beta 0.3 --trainer.max_epochs 1
  lit-pref fit --config dpo --model.objective SimPO --model.objective.beta 2.0
  lit-pref fit --config dpo --config data/pairs --data.train pairs.jsonl
  lit-pref COMMAND --help                  all options of a command
  lit-pref fit --model.help DPOModule      the arguments of a class
  lit-pref fit --config CONFIG --print_config    the resolved configuration

options
  --debug      show the traceback of an error
  --version    print the version
  --help       print this
"""

# A disk that is full or may not be written, a path that cannot be: wherever a library met them.
_OF_DISK = (ENOSPC, EDQUOT, EACCES, EPERM, EROFS, EEXIST, EISDIR, ENOTDIR, ENAMETOOLONG, ELOOP)
# Each command, and the module whose `run` it is.
_COMMANDS = {each: each for each in ("init", "synthesize", "evaluate", "export")}
_COMMANDS |= dict.fromkeys(("fit", "validate", "test", "predict"), "train")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command; exit with 0, with 2 for wrong input, 130 when interrupted, 143 by SIGTERM, 129 by SIGHUP."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    given = [argument for argument in given if argument != "--debug"]
    if not given or given[0] in ("-h", "--help", "help"):
        print(HELP, end="")
        return
    if given[0] == "--version":
        from importlib.metadata import version

        print(version("lit-pref"))
        return
    if given[0] not in _COMMANDS:
        _exit_with(_unknown_command(given[0]))
    try:
        _run(given)
    except KeyboardInterrupt as interrupt:
        way_on = f"go on with: {interrupt}" if str(interrupt) else "the same command goes on from what is finished"
        print(f"\nlit-pref: interrupted; {way_on}", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        if debug or not _is_for_user(error):
            raise
        _exit_with(_of_disk(error) if isinstance(error, OSError) else str(error))


def _run(arguments: list[str]) -> None:
    from importlib import import_module

    if "" not in sys.path:
        # One's own classes are modules of the working folder. It comes last: a random.py there must not take the place
        # of the standard library's. Processes that are started find them too: those of DDP run this again, Ray and
        # multiprocessing hand the path on.
        sys.path.append("")
    import_module(f"lit_pref.cli.{_COMMANDS[arguments[0]]}").run(arguments)


def _is_for_user(error: Exception) -> bool:
    from lit_pref.errors import SandboxUnavailableError, UserError

    if isinstance(error, OSError):
        return error.errno in _OF_DISK
    return isinstance(error, UserError | SandboxUnavailableError)


def _of_disk(error: OSError) -> str:
    return f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror or error)


def _unknown_command(command: str) -> str:
    from difflib import get_close_matches

    from lit_pref.cli.old_names import COMMANDS

    if command in COMMANDS:
        return f"{command} is {COMMANDS[command]}"
    near = get_close_matches(command, _COMMANDS, n=1)
    return f"no command {command!r}" + (f"; did you mean {near[0]!r}?" if near else "; see lit-pref --help")


def _exit_with(message: str) -> None:
    print(f"lit-pref: error: {message}", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    main()
