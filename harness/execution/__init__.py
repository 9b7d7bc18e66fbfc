"""Running trainings: one writer, many workers."""
