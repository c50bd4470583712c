"""Short functions from descriptions."""
