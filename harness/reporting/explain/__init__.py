"""`harness why`: what became of a trial."""
