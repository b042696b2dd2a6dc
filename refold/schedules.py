"""What starts runs by itself, for `Engine(schedules=[Schedule(…)])`; `engine.schedules` acts and looks."""

from .engine.schedule_log import ScheduleNotFound
from .engine.schedule_plan import Schedule
from .engine.schedules import ScheduleInfo, Schedules

__all__ = ["Schedule", "ScheduleInfo", "ScheduleNotFound", "Schedules"]
