"""Tests of Refold inside other programs: scripts, loggers, workers, web frameworks."""
