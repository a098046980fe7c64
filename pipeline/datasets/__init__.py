"""Features that other people published, and our own, as training reads them."""
