"""Rows to text records, and back."""
