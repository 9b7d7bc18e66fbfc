"""The data gate: what is wrong with prepared windows, before any training."""
