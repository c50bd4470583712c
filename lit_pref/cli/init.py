"""`lit-pref init FOLDER`: a study of one's own, which runs with nothing but the installed kit."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from lit_pref.errors import UserError

_STUDY = Path(__file__).with_name("study")  # copied unchanged
_HELP = """\
usage: lit-pref init FOLDER

Make a study in a new or empty folder, which runs with only the installed kit:
  study.yaml              laid over the kit's own configuration dpo; quick.yaml: sizes for a first try
  my_objectives.py        an objective of your own, and test_my_objectives.py
  study.ipynb             the same in Python
  README.md               the commands
"""


def run(arguments: Sequence[str]) -> None:
    """`lit-pref init`: copy the study; Raises UserError unless one new or empty folder is named."""
    if {"-h", "--help"} & {*arguments}:
        print(_HELP, end="")
        return
    _, *named = arguments
    if len(named) != 1 or not named[0] or named[0].startswith("-"):
        raise UserError(f"expected a folder, as in: lit-pref init my-study, got {' '.join(named) or 'nothing'}")
    folder = Path(named[0])
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise UserError(f"{folder} exists and is not empty: name a new folder")
    shutil.copytree(_STUDY, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    print(f"made a study in {folder}: README.md there has the commands")
