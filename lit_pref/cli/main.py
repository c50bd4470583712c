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
  fit        train a method on data:        lit-pref fit --config configs/dpo_budget.yaml
  validate   its validation figures:        lit-pref validate --config CONFIG --ckpt_path CHECKPOINT
  test       its test figures:              lit-pref test --config CONFIG --ckpt_path CHECKPOINT
  predict    a figure for each held-out item, as predictions.parquet:
                                            lit-pref predict --config CONFIG --ckpt_path CHECKPOINT
  synthesize problems with tests -> samples -> preference pairs, or source code -> code pairs; resumable:
                                            lit-pref synthesize --config configs/synthesize/execution_pairs.yaml
                                            lit-pref synthesize --config configs/synthesize/code_pairs.yaml
  evaluate   pass@k on a benchmark:         lit-pref evaluate --task HumanEval --policy my-model
             a reward model:                lit-pref evaluate --config configs/evaluate/best_of_n.yaml
  export     a checkpoint as a model folder that transformers opens:
                                            lit-pref export --checkpoint runs/.../last.ckpt --output my-model

modules      DPOModule, SFTModule, PMPretrainModule, RewardFinetuneModule
data         ExecutionPairsDataModule, PassingSamplesDataModule, CodePairsDataModule, TaskPairsDataModule,
             PairsDataModule, DemonstrationsDataModule
objectives   DPO, IPO, SimPO, Hinge, DPOPositive
regularizers ChosenNLL, LikelihoodBudget
reward loss  BradleyTerry
adapters     LoRA
tasks        CodeTask, ReasoningTask, DeductionTask, Mixture, HumanEval, HumanEvalPlus, MBPP, MBPPPlus,
             CustomCodeTask (your own), GSM8K, MATH; of pairs or options: MathShepherd, ReClor, LogiQA2
evaluations  PassAtK, HeldOutPairs, PairAccuracy, BestOfN, MultipleChoiceAccuracy
callbacks    BeforeAfter, LastCheckpoint, GeometricCheckpoints, DecayFromCheckpoint
generators   OpenAIGenerator (any OpenAI-compatible server), VLLMGenerator
policies     embedded:base, embedded:coder, embedded:coder-strong, embedded:coder-weak, a model folder, a hub id

Every constructor argument is an option and a YAML key; a later --config or option wins:
  lit-pref fit --config configs/dpo_budget.yaml --model.objective.beta 0.3 --trainer.max_epochs 1
  lit-pref fit --config configs/dpo.yaml --model.objective SimPO --model.objective.beta 2.0
  lit-pref fit --config configs/dpo.yaml --config configs/data/pairs.yaml --data.train pairs.jsonl
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
_TRAINER_COMMANDS = ("fit", "validate", "test", "predict")
_COMMANDS = (*_TRAINER_COMMANDS, "synthesize", "evaluate", "export")


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
        _run(given[0], given)
    except KeyboardInterrupt as interrupt:
        way_on = f"go on with: {interrupt}" if str(interrupt) else "the same command goes on from what is finished"
        print(f"\nlit-pref: interrupted; {way_on}", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        if debug or not _is_for_user(error):
            raise
        _exit_with(_of_disk(error) if isinstance(error, OSError) else str(error))


def _run(command: str, arguments: list[str]) -> None:
    from lit_pref.cli.configs import with_own_configs

    if "" not in sys.path:
        # One's own classes are modules of the working folder. It comes last: a random.py there must not take the place
        # of the standard library's. Processes that are started find them too: those of DDP run this again, Ray and
        # multiprocessing hand the path on.
        sys.path.append("")
    arguments = with_own_configs(arguments)
    if command in _TRAINER_COMMANDS:
        from lit_pref.cli.train import run_trainer

        run_trainer(arguments)
    elif command == "synthesize":
        from lit_pref.cli.synthesize import run_synthesize

        run_synthesize(arguments[1:])
    elif command == "evaluate":
        from lit_pref.cli.evaluate import run_evaluate

        run_evaluate(arguments[1:])
    else:
        from lit_pref.cli.export import run_export

        run_export(arguments[1:])


def _is_for_user(error: Exception) -> bool:
    from lit_pref.errors import SandboxUnavailableError, UserError

    if isinstance(error, OSError):
        return error.errno in _OF_DISK
    return isinstance(error, UserError | SandboxUnavailableError)


def _of_disk(error: OSError) -> str:
    return f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror or error)


def _unknown_command(command: str) -> str:
    from difflib import get_close_matches

    near = get_close_matches(command, _COMMANDS, n=1)
    return f"no command {command!r}" + (f"; did you mean {near[0]!r}?" if near else "; see lit-pref --help")


def _exit_with(message: str) -> None:
    print(f"lit-pref: error: {message}", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    main()
