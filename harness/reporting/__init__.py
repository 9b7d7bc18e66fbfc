"""`harness report`, and what a study says."""
