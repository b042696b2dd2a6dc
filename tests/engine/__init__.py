"""Tests of the layer that makes it happen."""
