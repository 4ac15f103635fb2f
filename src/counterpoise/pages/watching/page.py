"""A run's report from a local server, made anew when the run has written something."""

from __future__ import annotations

import threading
import webbrowser

from counterpoise.errors import CounterpoiseError
from counterpoise.pages.watching.following import Follower
from counterpoise.pages.watching.terminal import has_browser
from counterpoise.system.server import Answer, Answers, Server

STAMP = "stamp"
_HEADERS = {"Content-Security-Policy": "frame-ancestors 'none'"}  # beside the page's own policy


def show(follower: Follower, port: int = 0) -> None:
    """Serve the page until Ctrl-C, and open it where there is a browser. Raises ConfigError where the port is taken."""
    with Server(answers(follower), port) as server:
        print(f"Watching {follower.path} at {server.address} (Ctrl-C ends the watching; the run goes on)", flush=True)
        if has_browser():
            webbrowser.open(server.address)
        server.until_interrupted("Stopped watching; the run goes on.")


def answers(follower: Follower) -> Answers:
    """The page, and a text that changes whenever the page would."""
    from counterpoise.pages.report.page import render

    pages: dict[str, bytes] = {}
    lock = threading.Lock()  # browsers ask for several things at once

    def page() -> bytes:
        stamp = follower.stamp()
        with lock:
            if stamp not in pages:
                pages.clear()
                pages[stamp] = render([follower.path], updates=(STAMP, stamp)).encode()
            return pages[stamp]

    def answer(path: str) -> Answer | None:
        if path == STAMP:
            return Answer(follower.stamp().encode(), "text/plain; charset=utf-8")
        if path:
            return None
        try:
            return Answer(page(), "text/html; charset=utf-8", _HEADERS)
        except CounterpoiseError as error:  # a file in the middle of being replaced: the page asks again
            return Answer(f"{error}\n".encode(), "text/plain; charset=utf-8", {"Refresh": "2"})

    return answer
