"""Kinds of runs: a study's trials, its controls, and (in `harness.selection`) its replicates on fresh seeds."""
