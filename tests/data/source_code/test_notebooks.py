"""The Python program in a notebook."""

import json

import pytest

from lit_pref.data.source_code.notebooks import notebook_source
from lit_pref.data.source_code.source_file import RefusedFileError


def notebook(*cells, **metadata):
    return json.dumps(
        {"cells": [{"cell_type": "code", "source": cell} for cell in cells], "metadata": metadata}
    ).encode()


def test_a_notebook_is_its_code_cells_without_magics():
    cells = ["%matplotlib inline\nimport os\n!ls -l\nfiles = !ls\n", ["x = 1\n", "y = (x\n", "     % 2)\n", "x?\n"]]
    cells += ["%%bash\nrm -r x\n", "%%time\nz = 3", ""]
    assert notebook_source(notebook(*cells)) == (
        "# %matplotlib inline\n\nimport os\n# !ls -l\n\n# files = !ls\n\n"
        "x = 1\ny = (x\n     % 2)\n# x?\n\n"
        "# %%bash\n# rm -r x\n\n"
        "# %%time\n\nz = 3\n"
    )


def test_older_notebooks_have_worksheets():
    cells = [{"cell_type": "code", "input": ["x = 1\n"]}, {"cell_type": "markdown", "source": "no code"}]
    assert notebook_source(json.dumps({"worksheets": [{"cells": cells}], "nbformat": 3}).encode()) == "x = 1\n"


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"no JSON", "broken notebook"),
        (b"\xff", "broken notebook"),
        (b"[" * 100_000, "broken notebook"),
        (b"[]", "broken notebook"),
        (b"{}", "broken notebook"),
        (b'{"cells": 3}', "broken notebook"),
        (b'{"worksheets": [3]}', "broken notebook"),
        (notebook("x <- 1", language_info={"name": "R"}), "notebook in another language"),
        (notebook("x = 1", kernelspec={"language": "julia"}), "notebook in another language"),
    ],
)
def test_what_is_no_notebook_of_python_is_refused_by_name(raw, reason):
    with pytest.raises(RefusedFileError) as refused:
        notebook_source(raw)
    assert refused.value.reason == reason


def test_cells_of_an_unknown_form_hold_no_code():
    cells = [3, {"cell_type": "code"}, {"cell_type": "code", "source": 3}, {"cell_type": "code", "source": ["x\n", 3]}]
    raw = json.dumps({"cells": cells, "metadata": {"language_info": {"name": "ipython3"}}}).encode()
    assert notebook_source(raw) == "x\n"
