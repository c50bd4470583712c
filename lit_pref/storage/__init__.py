"""How the kit keeps things on disk: whole or not at all, checked by their own sums."""
