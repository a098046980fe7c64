"""From video files to features."""
