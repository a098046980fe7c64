"""Other people's formats, one a file: what their tools read, and, where corrections come back, what they write."""
