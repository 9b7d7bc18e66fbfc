"""From the recordings of a corpus to labelled windows with a digest."""
