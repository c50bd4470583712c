"""What older configurations and commands say, and what it is called now: an old name gets a sentence that tells."""

CLASSES = {
    "ReasoningPairsDataModule": "TaskPairsDataModule",
    "CodeProblems": "CustomCodeTask",
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
    "sampler": "now sampled_policy",
    "made": "now answers",
}
COMMANDS = {"tokenizer": "no command any more, but a script of the repository: configs/embedded/tokenizer.py"}
LOGGED = {"eval/": "validation/"}


def new_class(given: str) -> str | None:
    """What a class of the kit is called now; None where the name is none of its old ones."""
    module, _, stem = given.rpartition(".")
    return CLASSES.get(stem) if not module or module.startswith("lit_pref.") else None
