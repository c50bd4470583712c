"""Source code to snippets."""
