"""Runs LocalStack for as long as somebody holds the other end of standard input.

Whoever started it may be killed without a chance to clean up; a closed pipe is noticed all the same. Nothing in it is worth
keeping and its own shutdown can hang, so that it is killed, with everything that it started: all of that is in this process group.
"""

import os
import signal
import sys
import threading


def end_with_starter() -> None:
    while sys.stdin.buffer.read(4096):
        pass
    os.killpg(0, signal.SIGKILL)


def main() -> None:
    if os.getpgrp() != os.getpid():
        sys.exit("start.py must lead a process group of its own, since it ends its whole group")
    threading.Thread(target=end_with_starter, daemon=True).start()
    from localstack.runtime.main import main as run

    run()


main()
