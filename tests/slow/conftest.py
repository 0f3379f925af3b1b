"""The fixtures of single nodes serve here, too."""

from tests.nodes.conftest import node
from tests.slow.pair import pair

__all__ = ["node", "pair"]
