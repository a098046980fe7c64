"""From scores to segments and files."""
