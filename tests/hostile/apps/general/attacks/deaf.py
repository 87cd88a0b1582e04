"""Processes that no signal but SIGKILL ends, in sessions of their own."""

import os
import signal
import time


def hide(processes):
    for _ in range(processes):
        if os.fork() == 0:
            os.setsid()
            for number in range(1, 31):
                try:
                    signal.signal(number, signal.SIG_IGN)
                except (OSError, ValueError):
                    pass
            if os.fork() == 0:
                os.setsid()
            time.sleep(600)
            os._exit(0)
    return processes
