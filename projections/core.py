"""The read models that every store has."""

from .costs import COSTS
from .edges import STEP_EDGES
from .projection import Projection
from .runs import RUNS
from .steps import STEPS

CORE: tuple[Projection, ...] = (RUNS, STEPS, STEP_EDGES, COSTS)
