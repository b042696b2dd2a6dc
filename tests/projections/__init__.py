"""Tests of the read models: folds, runners, rebuilding, the page that documents them."""
