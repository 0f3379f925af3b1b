# Copyright (c) Trainyard contributors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""The store through which PyTorch's trainers find each other. It outlives them all: whoever starts it ends it.

Run by path, with the environment's Python; it imports nothing of ours.
"""

import signal
import sys

from torch.distributed import TCPStore  # type: ignore[import-not-found]

if __name__ == "__main__":
    store = TCPStore(sys.argv[1], int(sys.argv[2]), is_master=True, wait_for_workers=False)
    signal.pause()
