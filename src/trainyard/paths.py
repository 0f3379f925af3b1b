"""Where things lie in a checkout."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
STATE = Path(os.environ.get("TRAINYARD_STATE") or REPOSITORY / ".trainyard").absolute()
"""What this checkout made for itself: reports, and in lab/ the keys and host keys of the lab on this machine. Never committed.

The environment variable TRAINYARD_STATE names another folder."""

CHECKOUT = hashlib.sha256(str(REPOSITORY).encode()).hexdigest()[:6]
"""Part of the names of containers, so that two checkouts on one machine do not meet."""
