"""``quick_python.py SOCKET PYTHON WORD..``: does as ``PYTHON WORD..`` does, in a fork that forks.py makes of itself.

Whatever ends this process ends the fork; signals are handed on. With options of Python's, that runs itself.
"""

import json
import os
import signal
import socket
import sys

HANDED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main() -> int:
    place, python, *words = sys.argv[1:]
    if not words or (words[0].startswith("-") and words[0] not in ("-c", "-m")):
        os.execv(python, [python, *words])
    ignored = [number for number in HANDED_ON if signal.getsignal(number) == signal.SIG_IGN]
    asked = {"words": words, "folder": os.getcwd(), "environment": dict(os.environ), "ignored": ignored}
    with socket.socket(socket.AF_UNIX) as server:
        server.connect(place)
        for number in set(HANDED_ON) - set(ignored):
            signal.signal(number, lambda number, _: server.send(bytes([number])))
        data = json.dumps(asked).encode()
        socket.send_fds(server, [len(data).to_bytes(8)], [0, 1, 2])
        server.sendall(data)
        status = int(server.recv(8))
    if status < 0:
        if -status != signal.SIGKILL:
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    return status


if __name__ == "__main__":
    sys.exit(main())
