"""Problems made of the functions of a Python package, whose docstrings show what they give."""
