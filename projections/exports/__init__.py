"""A run, or all of them, as files for other programs: one module for each kind of file."""
