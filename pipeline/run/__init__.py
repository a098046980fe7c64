"""Many videos in, results on disk."""
