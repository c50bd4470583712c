"""lit_pref: preference learning on PyTorch Lightning. Start with `types.py`, then `modules/`."""
