"""`harness snapshot` and `harness restore`: the record under DVC."""
