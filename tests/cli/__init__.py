"""Tests of the command line: the installed program, in processes of its own."""
