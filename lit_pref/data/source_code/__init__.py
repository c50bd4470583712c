"""Raw source code: files of folders, archives and tables, and their text."""
