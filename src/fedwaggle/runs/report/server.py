"""The live pages: the report of a run that goes on, and those beside it, on 127.0.0.1.

``/`` is the run, ``/runs`` the list of the runs in its folder, ``/runs/NAME/`` one of them. A page
asks every few seconds for the version of the record, and loads itself again when it
has changed. Drawing takes time that the run may need, so the pauses grow with it.
"""

from __future__ import annotations

import logging
import re
import time
import webbrowser
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import BoundedSemaphore, Lock, Thread
from types import TracebackType
from typing import Any, Self
from urllib.parse import unquote

from fedwaggle.errors import RunError
from fedwaggle.runs.paths import EVENTS, run_folders
from fedwaggle.runs.record import is_being_written
from fedwaggle.runs.report.index import render_index
from fedwaggle.runs.report.render import render

__all__ = ["ReportServer", "serve"]

logger = logging.getLogger(__name__)

_PAUSE = 2.0  # seconds between two questions of a page, at least
_REQUEST_SECONDS = 10.0  # that a browser may take for its question
_MOST_THREADS = 32
_MOST_PAGES = 8  # of other runs; a page is some megabytes
_SHARE = 20  # drawing may take one part in so many of the time


class ReportServer:
    """Serve the report of one run until it is closed.

    Parameters
    ----------
    run : Path
        The folder of the run.
    port : int
        The port on 127.0.0.1; 0 takes a free one.

    Attributes
    ----------
    url : str
        Where the page is.

    Raises
    ------
    RunError
        If the run cannot be read, or the port cannot be had.
    """

    def __init__(self, run: Path, port: int = 0) -> None:
        pages = _Pages(run)
        pages.main.html()  # what cannot be read is said now, and not to the browser
        try:
            self._server = _Server(("127.0.0.1", port), _handler(pages))
        except OSError as error:
            raise RunError(
                f"port {port}: cannot be had ({error.strerror}); name another one, or 0 for any"
            ) from error
        self.port = int(self._server.server_address[1])
        self.url = f"http://127.0.0.1:{self.port}/"
        self._thread = Thread(target=self._server.serve_forever, args=(0.1,), daemon=True)

    def __enter__(self) -> Self:
        """Begin to answer."""
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Answer no more, and free the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def wait(self) -> None:
        """Block for as long as the server answers."""
        while self._thread.is_alive():
            self._thread.join(1.0)  # an interrupt from the keyboard is heard in between


def serve(run: Path, port: int = 0, *, open_browser: bool = False) -> None:
    """Serve the live report of a run on 127.0.0.1 until Ctrl-C.

    Parameters
    ----------
    run : Path
        The folder of the run.
    port : int
        The port; 0 takes a free one.
    open_browser : bool
        Whether to show it in the person's browser.

    Raises
    ------
    RunError
        If the run cannot be read, or the port cannot be had.
    """
    with ReportServer(run, port) as server:
        try:
            print(f"{run.name}: {server.url}  (Ctrl-C ends it)", flush=True)
            if open_browser:
                webbrowser.open(server.url)
            server.wait()
        except KeyboardInterrupt:
            print()


class _LivePage:
    """The page, drawn again when the record has grown."""

    def __init__(self, run: Path) -> None:
        self._run = run
        self._lock = Lock()
        self._drawn = ("", "")  # version, page
        self._pause = _PAUSE

    def version(self) -> str:
        """Return what changes whenever the record does."""
        try:
            facts = (self._run / EVENTS).stat()
        except OSError as error:
            raise RunError(f"{self._run / EVENTS}: gone ({error.strerror})") from error
        is_live = is_being_written(self._run)  # a process that died leaves the file as it was
        return f"{facts.st_size}-{facts.st_mtime_ns}-{is_live:d}"

    def html(self) -> str:
        """Return the page as the record stands."""
        with self._lock:  # two browsers shall not draw the same page twice
            version = self.version()
            if version != self._drawn[0]:
                began = time.monotonic()
                live = {"version": version, "seconds": round(self._pause, 1)}
                self._drawn = (version, render(self._run, live=live))
                self._pause = max(_PAUSE, _SHARE * (time.monotonic() - began))
            return self._drawn[1]


class _Pages:
    """The pages of a run and of the other runs in its folder; the last few are kept."""

    def __init__(self, run: Path) -> None:
        self.main = _LivePage(run)
        self._root = run.absolute().parent
        self._lock = Lock()
        self._kept: OrderedDict[str, _LivePage] = OrderedDict()

    def answer_to(self, path: str) -> tuple[str, Callable[[], str]] | None:
        """Return the kind of an answer and what makes it; None if there is no such page."""
        if path == "/runs":
            return "text/html", partial(render_index, self._root)
        page, _, name = self._page_of(path)
        if page is None or name not in ("", "version"):
            return None
        return ("text/plain", page.version) if name else ("text/html", page.html)

    def _page_of(self, path: str) -> tuple[_LivePage | None, str, str]:
        match = re.fullmatch(r"/runs/([^/]+)/(version)?", path)
        if match is None:
            return self.main, "/", path.removeprefix("/")
        folder = unquote(match[1])
        if folder not in {each.name for each in run_folders(self._root)}:
            return None, "", ""
        with self._lock:
            page = self._kept.pop(folder, None) or _LivePage(self._root / folder)
            self._kept[folder] = page
            while len(self._kept) > _MOST_PAGES:
                self._kept.popitem(last=False)
        return page, folder, match[2] or ""


class _Server(ThreadingHTTPServer):
    """A server with so many threads at most: who comes then is turned away."""

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(address, handler)
        self._free = BoundedSemaphore(_MOST_THREADS)

    def process_request(self, request: Any, client_address: Any) -> None:  # noqa: ANN401
        """Answer in a thread, if one is free."""
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:  # noqa: ANN401
        """Answer, and free the thread."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()


def _handler(pages: _Pages) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        """Answer with a page or its version, to this machine's own names only."""

        timeout = _REQUEST_SECONDS

        def do_GET(self) -> None:  # http.server's name
            """Answer a question."""
            # A page of another site may resolve its own name to 127.0.0.1 and ask us then.
            host = self.headers.get("Host", "").rsplit(":", 1)[0]
            found = pages.answer_to(self.path) if host in ("127.0.0.1", "localhost") else None
            if found is None:
                self.send_error(HTTPStatus.NOT_FOUND)
                return
            kind, answer = found
            try:
                body = answer().encode()
            except RunError as error:
                logger.warning("%s", error)
                self.send_error(HTTPStatus.SERVICE_UNAVAILABLE)
                return
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", f"{kind}; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Keep the terminal quiet: a page asks every few seconds."""
            logger.debug(format, *args)

    return Handler
