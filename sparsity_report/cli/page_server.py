"""Process of the server of ``explore``: Voilà, which ends with the process that started it."""

import os
import shutil
import signal
import sys
import time
from pathlib import Path
from threading import Event, Thread

# Most seconds for the server to end.
_END = 10.0


def main(folders: str, *arguments: str) -> None:
    """Run Voilà; remove folders, joined as those of PATH, if the parent ended before."""
    orphaned = Event()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # until Voilà has its own
    Thread(target=_end_with_parent, args=(orphaned, folders), daemon=True).start()
    try:
        from voila.app import Voila

        Voila.launch_instance(list(arguments))
    finally:
        if orphaned.is_set():
            _remove(folders)


def _end_with_parent(orphaned: Event, folders: str) -> None:
    """Stop the server once the pipe of the parent ends, which it does however the parent ends."""
    while os.read(0, 1):
        pass
    orphaned.set()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_END)
    _remove(folders)
    os.kill(os.getpid(), signal.SIGKILL)


def _remove(folders: str) -> None:
    for folder in map(Path, folders.split(os.pathsep)):
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
