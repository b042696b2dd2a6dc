"""Tests of the log: stores, streams, values."""
