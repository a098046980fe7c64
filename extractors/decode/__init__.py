"""From a file to upright frames on a steady grid, in a process of its own."""
