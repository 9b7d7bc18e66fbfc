"""Sweeps, trials and policies as typed values, read from YAML: torch-free and quick to import."""
