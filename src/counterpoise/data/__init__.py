"""Images and their views: what goes into a network, as uint8 batches drawn from (seed, epoch, sample index)."""
