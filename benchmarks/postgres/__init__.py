"""The same questions on a PostgreSQL server with durable settings, as multiples of a bare commit there."""
