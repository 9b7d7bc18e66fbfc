"""Which model may ship: fresh seeds, ensembles, meetings."""
