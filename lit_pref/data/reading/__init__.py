"""Files, folders and hub data sets to rows."""
