"""Answers of a store in a browser: read-only pages, on loopback unless a token is asked for.

The pages are made on the server. Each is one screen; its queries are bounded, and a page says
what it left out. Nothing comes from another host. Needs the extra ``sidelight[ui]``.
"""

from typing import TYPE_CHECKING

from sidelight.host import lazily

if TYPE_CHECKING:
    from sidelight.page.beside import Beside, Health, Lag
    from sidelight.page.door import Door
    from sidelight.page.server import serve

__all__ = ["Beside", "Door", "Health", "Lag", "serve"]

__getattr__ = lazily(__name__, {"beside": "Beside Health Lag", "door": "Door", "server": "serve"})
