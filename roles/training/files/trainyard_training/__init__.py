# Copyright (c) Trainyard contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Training jobs on a Slurm cluster: cluster_train, sweep and run-one. Needs nothing but Python and Slurm's own commands."""
