"""For all tests: examples that hypothesis makes have no time limit of their own, since the machine may be busy with nodes."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# too_slow measures how long the examples took to make, which also depends on what else the machine does.
settings.register_profile("trainyard", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("trainyard")
