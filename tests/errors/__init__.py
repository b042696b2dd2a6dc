"""The catalogue of errors: complete, and every message of it met for real."""
