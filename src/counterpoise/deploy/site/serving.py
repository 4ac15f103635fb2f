"""A site shown on this machine, until Ctrl-C."""

from __future__ import annotations

from pathlib import Path

from counterpoise.deploy.site import site
from counterpoise.errors import ConfigError
from counterpoise.system.server import Server, from_folder


def serve_site(folder: Path, port: int | None = None) -> None:
    """Show a site until Ctrl-C, and say how it gets to a phone.

    Its port follows from its content: a browser that keeps one site for offline use does not take another for it.
    """
    answers = from_folder(folder, {"Content-Security-Policy": site.CONTENT_SECURITY_POLICY})
    try:
        server = Server(answers, 20000 + int(site.version(folder), 16) % 10000 if port is None else port)
    except ConfigError:
        if port is not None:
            raise
        server = Server(answers)
    with server:
        print(
            f"Open {server.address} (Ctrl-C ends the server; the folder stays)\n"
            "The camera, offline use and the GPU need HTTPS or localhost, which this address is. To a phone:\n"
            f"  put {folder} on any static host with HTTPS, where nothing has to run, or\n"
            f"  connect it by USB, run: adb reverse tcp:{server.port} tcp:{server.port}\n"
            f"  and open http://localhost:{server.port}/ on it",
            flush=True,
        )
        server.until_interrupted("Stopped.")
