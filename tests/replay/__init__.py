"""Replay: random and handwritten handlers, golden histories, divergence and eviction."""
