"""What older configurations and commands say, and what it is called now: an old name gets a sentence that tells."""

CLASSES = {
    "ReasoningPairsDataModule": "TaskPairsDataModule",
    "CodeProblems": "CustomCodeTask",
    "HeldOutPairs": "PairAccuracy without pairs",
    "TaskPairs": "StrongWeakPairs",
    "Engine": "Compute",
    "BubblewrapSandbox": "IsolatedSandbox with level: bubblewrap",
    "NamespaceSandbox": "IsolatedSandbox with level: namespaces",
    "SeccompSandbox": "IsolatedSandbox with level: seccomp",
    "UnsafeSubprocessSandbox": "IsolatedSandbox with level: none",
}
# By the last part of the key; only keys that a class does not have are looked up.
KEYS = {
    "engine": "now compute",
    "made": "now answers",
    "sampler": "now sampled_policy, in a data module samples.sampled_policy",
    "sampled_policy": "now samples.sampled_policy",
    "sampling": "now samples.sampling",
    "cache_folder": "now samples.cache_folder",
    "problems": "now train_size",
    "pairs": "now train_size",
    "descriptions": "now train_size",
    "held_out": "gone: fit and validate read the validation split, test reads the test split",
    "held_out_problems": "now validation_size",
    "held_out_pairs": "now validation_size",
    "held_out_seed": "gone: validation and test pairs are the same for every seed",
    "validation_share": "now validation_size",
    "train": "no option here: PairsDataModule reads files of pairs, DemonstrationsDataModule those of demonstrations",
    "template": "no option here: PairsDataModule reads files of pairs, with its template",
    "train_split": "now splits.train",
    "validation_split": "now splits.validation",
    "max_tokens_per_batch": "now loading.max_tokens_per_batch",
    "num_workers": "now loading.num_workers",
    "batch_size": "now max_tokens_per_batch, which counts tokens",
}
COMMANDS = {"tokenizer": "no command any more, but a script of the repository: configs/embedded/tokenizer.py"}
LOGGED = {
    "eval/": "validation/",
    "budget/chosen_fall": "logps/chosen_fall",
    "budget/rejected_fall": "logps/rejected_fall",
}


def new_class(given: str) -> str | None:
    """What a class of the kit is called now; None where the name is none of its old ones."""
    module, _, stem = given.rpartition(".")
    return CLASSES.get(stem) if not module or module.startswith("lit_pref.") else None
