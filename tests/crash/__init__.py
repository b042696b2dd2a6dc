"""Runs that are killed, refused, shut down or left alone for a night, and what must be true of them then."""
