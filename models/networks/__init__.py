"""From features to logits: the CNN, and several of them computed as one."""
