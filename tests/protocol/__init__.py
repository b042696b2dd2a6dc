"""The protocol between owners, senders and a store that fails: simulated, and in small."""
