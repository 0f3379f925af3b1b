"""Where things lie in a checkout."""

from __future__ import annotations

from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
STATE = REPOSITORY / ".trainyard"
"""What this checkout made for itself: reports, and in lab/ the keys and host keys of the lab on this machine. Never committed."""
