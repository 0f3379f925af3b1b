# Copyright (c) Trainyard contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filter: users without their secrets."""

from __future__ import annotations

DOCUMENTATION = r"""
name: users_without_secrets
short_description: Users without their password hashes
version_added: 0.1.0
description:
  - Returns C(base_users) without C(password_hash), for loops and modules whose items and arguments are shown.
author: Trainyard contributors (@trainyard)
options:
  _input:
    description: Users as in C(base_users).
    type: list
    elements: dict
    required: true
"""

EXAMPLES = r"""
loop: "{{ base_users | trainyard.core.users_without_secrets }}"
"""

RETURN = r"""
_value:
  description: The users.
  type: list
  elements: dict
"""

from typing import Any


def users_without_secrets(users: Any) -> Any:
    """Return users without ``password_hash``; what is no list of users comes back as it is, for the check to refuse."""
    if not isinstance(users, list):
        return users
    return [{key: value for key, value in user.items() if key != "password_hash"} if isinstance(user, dict) else user for user in users]


class FilterModule:
    """What Ansible looks for in a filter file."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {"users_without_secrets": users_without_secrets}
