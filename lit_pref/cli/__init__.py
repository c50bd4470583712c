"""The commands of `lit-pref`."""
