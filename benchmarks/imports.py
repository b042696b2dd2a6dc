"""How long `import refold` takes in a fresh process."""

import statistics

from .harness import Figure, Scale, at_most, fresh_code

CODE = """
import json, time
began = time.perf_counter()
import refold
print(json.dumps({"seconds": time.perf_counter() - began}))
"""


def run(scale: Scale) -> list[Figure]:
    """Import time."""
    fresh_code(CODE)  # writes the bytecode files
    spans = [fresh_code(CODE)["seconds"] for _ in range(scale.pick(11, 1))]
    return [at_most("import refold, fresh process", statistics.median(spans), "s", 0.25)]
