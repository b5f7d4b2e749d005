"""The index of a source that has none: scanning it, keeping what was found."""
