"""The page of the data service: what a person sees and does in a browser.

Responsible for: HTML, its look and its little script. Rendered by the server, live by server-sent
events; no build step, nothing from another host.

Rules:
- no logic of its own: every route calls the service, and renders what it said;
- what comes from a record, a client or a file is text: templates escape everything, no script or
  style stands in a page, and a policy tells browsers so;
- a form works without a script; what changes anything is a POST, followed by a redirect.
"""

from __future__ import annotations

from splitpipe.server.pages.routes import pages

__all__ = ["pages"]
