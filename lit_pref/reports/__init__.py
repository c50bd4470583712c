"""What a reader sees at the end: tables and result files."""
