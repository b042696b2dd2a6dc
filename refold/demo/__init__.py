"""`refold demo`: a real workflow, a real `kill -9` in its middle, and the proof that nothing ran twice."""
