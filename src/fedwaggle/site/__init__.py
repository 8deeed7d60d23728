"""The client's side of a real federation: what a site lets out, how long, and with which code.

``policy`` reads the file in which the operator of a site writes what may leave it; ``rules``
applies it to numbers and names, ``outgoing`` to a whole reply. ``guard`` holds a Flower mod
around the client app: it compares the app's code (``code``) with the server's and keeps the
server's deadline (``deadline``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fedwaggle.lazy import imported

if TYPE_CHECKING:
    from fedwaggle.site.guard import safeguards
    from fedwaggle.site.policy import SitePolicy, read_site_policy

__all__ = ["SitePolicy", "read_site_policy", "safeguards"]

_HOMES = {"SitePolicy": "policy", "read_site_policy": "policy", "safeguards": "guard"}


def __getattr__(name: str) -> object:
    return imported(__name__, _HOMES, name)
