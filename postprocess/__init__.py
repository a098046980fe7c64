"""From the scores of the network to segments, files, pages and evaluations."""
