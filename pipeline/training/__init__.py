"""From labels per video to a checkpoint, with a check of how good it is."""
