"""Servers that go away, freeze, follow each other, or stand behind a pooler."""
