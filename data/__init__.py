"""Corpora, tasks, splits, the window store and the data gate."""
