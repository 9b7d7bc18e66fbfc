"""`harness doctor`: everything a sweep stands on, and how to mend it."""
