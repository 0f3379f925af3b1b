"""The fixtures of single nodes serve here, too."""

from tests.nodes.conftest import node

__all__ = ["node"]
