"""From a trained network to the one file that is shipped, and its variants."""
