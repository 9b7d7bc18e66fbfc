"""What is written down, as values: torch-free and quick to import."""
