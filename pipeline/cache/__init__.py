"""Features that are kept, so that no video is extracted twice."""
