"""What starts runs by itself, for `Engine(schedules=[Schedule(…)])`; `engine.schedules` acts and looks."""

from .engine.schedule_plan import Schedule
from .engine.schedules import ScheduleInfo, Schedules
from .events.errors import ScheduleNotFound

__all__ = ["Schedule", "ScheduleInfo", "ScheduleNotFound", "Schedules"]
