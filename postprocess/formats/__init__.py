"""Results as files: our own formats, and those of editors and annotation tools."""
