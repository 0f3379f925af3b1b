"""Where things lie in a checkout."""

from __future__ import annotations

import hashlib
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
STATE = REPOSITORY / ".trainyard"
"""What this checkout made for itself: reports, and in lab/ the keys and host keys of the lab on this machine. Never committed."""

CHECKOUT = hashlib.sha256(str(REPOSITORY).encode()).hexdigest()[:6]
"""Part of the names of containers, so that two checkouts on one machine do not meet."""
