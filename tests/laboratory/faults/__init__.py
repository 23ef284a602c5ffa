"""All faults: each file adds its own to `FAULTS`, a name and a generator that breaks, yields, and mends."""

from tests.laboratory.faults.fault import FAULTS, Fault

# The order of the table.
from tests.laboratory.faults import redis, failover, postgres, nodes, edges, partitions  # isort: skip

__all__ = ["FAULTS", "Fault", "edges", "failover", "nodes", "partitions", "postgres", "redis"]
