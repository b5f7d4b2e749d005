"""Layouts of the packages that this one grew from: split-data-loader, data-forager, synthefy."""
