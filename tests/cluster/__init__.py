"""Many processes on one log on PostgreSQL, and everything that can happen to them."""
