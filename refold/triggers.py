"""What started a run, with what belongs to it: `start(…, trigger=Trigger.webhook("/orders"))`."""

from .events.triggers import KINDS, Kind, Trigger, trigger_of

__all__ = ["KINDS", "Kind", "Trigger", "trigger_of"]
