"""The read models that every store has."""

from .artifacts import ARTIFACTS
from .attributes import RUN_ATTRIBUTES
from .checkpoints import CHECKPOINTS
from .children import CHILDREN
from .context import CONTEXT
from .costs import COSTS
from .edges import STEP_EDGES
from .fan_out_items import FAN_OUT_ITEMS
from .fan_outs import FAN_OUTS
from .gates import GATES
from .projection import Projection
from .runs import RUNS
from .steps import STEPS
from .timers import TIMERS
from .waits import WAITS

CORE: tuple[Projection, ...] = (
    RUNS, STEPS, STEP_EDGES, COSTS, RUN_ATTRIBUTES, GATES, WAITS, TIMERS, CHILDREN, FAN_OUTS, FAN_OUT_ITEMS,
    CONTEXT, CHECKPOINTS, ARTIFACTS,
)  # fmt: skip
