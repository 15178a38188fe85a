"""Routes of the workspace API.

Each file of this folder about a resource has a table ``ROUTES``. A path is a template as in the API's own definition:
``{name=projects/*/branches/*}`` stands for two pairs of words, and gives the handler their text as ``call.name``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import NamedTuple

from airflow_provider_lakebase.emulator.api.messages import Call
from airflow_provider_lakebase.emulator.model.errors import Json
from airflow_provider_lakebase.emulator.model.identities import Principal
from airflow_provider_lakebase.emulator.model.workspace import Workspace

Handler = Callable[[Workspace, Call, Principal], Json]

_VARIABLE = re.compile(r"\{(\w+)=([^}]+)\}")


class Route(NamedTuple):
    """A method and a path template, and what answers them."""

    method: str
    path: str
    handler: Handler


class Table:
    """Routes, to find the one of a call."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._routes = [(route, re.compile(_pattern(route.path))) for route in routes]

    def find(self, call: Call) -> tuple[Handler, Call] | None:
        """Return the handler of a call, and the call with the values of the path; None if there is no route."""
        for route, pattern in self._routes:
            match = pattern.fullmatch(call.path) if route.method == call.method else None
            if match:
                return route.handler, replace(call, values=match.groupdict())
        return None


def _pattern(path: str) -> str:
    return _VARIABLE.sub(lambda found: f"(?P<{found[1]}>{found[2].replace('*', '[^/]+')})", path)
