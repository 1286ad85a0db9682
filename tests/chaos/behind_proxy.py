"""`python -m tests.chaos.behind_proxy COMMAND…`: run it with its Redis servers behind proxies that signals disturb.

SIGUSR1 resets all connections; SIGUSR2 holds every piece of data back for a while. The command ends with this process.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from contextlib import ExitStack

from service.processes import spawn
from service.urls import split_urls
from tests.support.proxy import Proxy

DELAY_S, DELAYED_FOR_S = 0.2, 3.0
STATE, REPLAY = "WARPLOOM_STATE_URL", "WARPLOOM_REPLAY_URL"


def main() -> int:
    """The command's exit code."""
    with ExitStack() as stack:
        state, *shards = (
            stack.enter_context(Proxy(url)) for url in (os.environ[STATE], *split_urls(os.environ[REPLAY]))
        )
        proxies, cut, delay = (state, *shards), threading.Event(), threading.Event()
        signal.signal(signal.SIGUSR1, lambda *_: cut.set())
        signal.signal(signal.SIGUSR2, lambda *_: delay.set())
        child = spawn(
            sys.argv[1:], env={**os.environ, STATE: state.url, REPLAY: ",".join(shard.url for shard in shards)}
        )
        signal.signal(signal.SIGTERM, lambda *_: os.kill(child.pid, signal.SIGTERM))
        while not child.wait(0.05):
            if cut.is_set():
                cut.clear()
                for proxy in proxies:
                    proxy.cut()
            if delay.is_set():
                delay.clear()
                for proxy in proxies:
                    proxy.delay(DELAY_S)
                    threading.Timer(DELAYED_FOR_S, proxy.delay, (0.0,)).start()
        child.kill()
        return child.code() or 0


if __name__ == "__main__":
    sys.exit(main())
