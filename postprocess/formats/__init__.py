"""Results as files, in our own formats and in those of video editors and annotation tools."""
