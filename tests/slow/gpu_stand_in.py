"""A stand-in for a GPU: a device on a virtual machine's PCI bus with the ids of an NVIDIA L4, and nothing behind them.

QEMU has no such device, and lets another process be one (its device x-pci-proxy-dev): QEMU asks for every access to the device's
configuration and registers. Firmware, kernel, udev and both drivers meet it as they would a real GPU, up to the point where they want it to
do something: each register but the first reads as zero, and what is written to them is dropped. nouveau stays loaded and has nothing to do,
NVIDIA's own module finds that it does not drive such a GPU and goes.

    python gpu_stand_in.py DESCRIPTOR      of a socket whose other end QEMU has
"""

from __future__ import annotations

import os
import socket
import struct
import sys

# Commands of QEMU's protocol (mpqemu-link.h). A message is a command, the length of what follows, and that.
RETURN, CONFIG_WRITE, CONFIG_READ, REGISTER_WRITE, REGISTER_READ, RESET = 1, 2, 3, 4, 5, 7
HEADER, CONFIG, REGISTER, ANSWER = "<i4xQ", "<IIi", "<QQI?3x", "<i4xQQ"

NVIDIA, L4, BOARD = 0x10DE, 0x27B8, 0x16CA
CLASS = 0x030200A1  # 3D controller, revision a1
REGIONS = {0: 16 << 20, 1: 256 << 20, 3: 32 << 20}  # base address register -> bytes
AD104 = 0x194000A1  # the first register says which chip it is


class Gpu:
    """The device's configuration space and its first register."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Be as after power on."""
        self.config, self.writable = bytearray(256), bytearray(256)
        struct.pack_into("<HH", self.config, 0x00, NVIDIA, L4)
        struct.pack_into("<I", self.config, 0x08, CLASS)
        struct.pack_into("<HH", self.config, 0x2C, NVIDIA, BOARD)
        self.config[0x3D] = 1  # interrupt pin A
        self.writable[0x04:0x06] = b"\x07\x04"  # command
        self.writable[0x3C] = 0xFF  # interrupt line
        for number, size in REGIONS.items():
            struct.pack_into("<I", self.writable, 0x10 + 4 * number, 0x100000000 - size)

    def read(self, at: int, size: int) -> int:
        """Read the configuration."""
        return int.from_bytes(self.config[at : at + size], "little")

    def write(self, at: int, size: int, value: int) -> None:
        """Write those bits of the configuration that can be written."""
        for place, new in enumerate((value & 0xFFFFFFFF).to_bytes(4, "little")[:size], at):
            if place < len(self.config):
                mask = self.writable[place]
                self.config[place] = self.config[place] & ~mask & 0xFF | new & mask

    def register(self, address: int) -> int:
        """Read the register at an address of the machine's memory."""
        return AD104 if address == self.read(0x10, 4) & ~0xF else 0


def answer(gpu: Gpu, command: int, data: bytes) -> int | None:
    """Do what QEMU asks for; None where it awaits no answer."""
    if command == CONFIG_READ:
        at, _value, size = struct.unpack(CONFIG, data)
        return gpu.read(at, size)
    if command == CONFIG_WRITE:
        at, value, size = struct.unpack(CONFIG, data)
        gpu.write(at, size, value)
        return 0
    if command == REGISTER_READ:
        return gpu.register(struct.unpack(REGISTER, data)[0])
    if command == REGISTER_WRITE:
        return 0
    if command == RESET:
        gpu.reset()
        return 0
    return None  # where the machine's memory is, and which interrupt to raise: it does neither


def serve(connection: socket.socket) -> None:
    """Answer until QEMU is gone."""
    gpu, received = Gpu(), b""
    while True:
        data, descriptors, _flags, _address = socket.recv_fds(connection, 65536, 16)
        for descriptor in descriptors:
            os.close(descriptor)
        if not data:
            return
        received += data
        while len(received) >= struct.calcsize(HEADER):
            command, length = struct.unpack_from(HEADER, received)
            end = struct.calcsize(HEADER) + length
            if len(received) < end:
                break
            value = answer(gpu, command, received[struct.calcsize(HEADER) : end])
            received = received[end:]
            if value is not None:
                connection.sendall(struct.pack(ANSWER, RETURN, 8, value))


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
