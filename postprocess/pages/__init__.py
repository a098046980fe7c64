"""Pages and pictures for people: the report, its index, and plots."""
