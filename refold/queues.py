"""Queues of runs, declared in code: `Engine(…, queues=[Queue("emails", concurrency=4)])`."""

from .engine.queues import Queue, Queues, QueueState

__all__ = ["Queue", "QueueState", "Queues"]
