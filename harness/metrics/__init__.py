"""Pure functions of numbers: scores, intervals, comparisons, frames of a meeting."""
