"""How a report reads and looks."""
