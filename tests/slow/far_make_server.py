"""The other end of far_make.c: runs make in the same folder, on the same files, for as long as the client is there."""

import os
import select
import signal
import socketserver
import struct
import subprocess
import sys


class Call(socketserver.StreamRequestHandler):
    """One call of make."""

    def number(self) -> int:
        """Return the next number that the client sent."""
        return int(struct.unpack("!I", self.rfile.read(4))[0])

    def texts(self) -> list[str]:
        """Return the next list of texts that the client sent."""
        return [self.rfile.read(self.number()).decode() for _ in range(self.number())]

    def handle(self) -> None:
        """Run it, send what it prints, and then its exit status; where the client is gone, as after a power cut, end it."""
        (folder,), environment, words = self.texts(), self.texts(), self.texts()
        variables = dict(variable.partition("=")[::2] for variable in environment)
        # Compilers by ccache, where there is one.
        variables.update(PATH="/usr/lib/ccache:/usr/sbin:/usr/bin:/sbin:/bin", CCACHE_DIR=os.environ["CCACHE_DIR"])
        make = subprocess.Popen(
            ["/usr/bin/make", *words[1:]],
            cwd=folder,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        assert make.stdout
        output = make.stdout.fileno()
        try:
            while True:
                ready = select.select([output, self.connection], [], [])[0]
                if self.connection in ready:
                    return
                text = os.read(output, 65536)
                self.wfile.write(struct.pack("!I", len(text)) + text)
                if not text:
                    self.wfile.write(struct.pack("!I", make.wait()))
                    return
        except OSError:
            pass
        finally:
            if make.poll() is None:
                os.killpg(make.pid, signal.SIGKILL)


class Server(socketserver.ThreadingTCPServer):
    """One thread for each call."""

    daemon_threads = True
    allow_reuse_address = True


if __name__ == "__main__":
    with Server(("", int(sys.argv[1])), Call) as server:
        server.serve_forever()
