"""Tasks made by a grammar, endless and seeded, that need no files."""
