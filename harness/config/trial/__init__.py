"""One configuration of a study, as values: what is trained, on what, how."""
