"""Text records to tokens, kept on disk."""
