"""Video out: clips, reels, overlays and proxies."""
