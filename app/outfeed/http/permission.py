"""Permissions: each route declares what its requests need.

`@requires(READ)` or `@public()` stands under the route's decorator. A route without either can't be registered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from flask import Flask, current_app, request
from flask.typing import RouteCallable
from werkzeug.exceptions import HTTPException

from outfeed.errors import UndeclaredRoute
from outfeed.principal import ANY, READ, WRITE

SAFE_METHODS = {"GET", "HEAD", "OPTIONS"}
_View = TypeVar("_View", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Permission:
    """The permission that a request needs. A public route has no *scope*.

    If an unauthenticated browser requests a page, it is redirected to the sign-in. Every other unauthenticated request
    gets 401. Attempts to open a connection are counted. A route that takes tickets also rejects a cookie that another
    site's page sends. A route that *takes_only_tokens* ignores every cookie.
    """

    scope: str | None
    is_page: bool = False
    is_connection: bool = False
    takes_tickets: bool = False
    takes_only_tokens: bool = False


def requires(
    scope: str, *, is_page: bool = False, is_connection: bool = False, takes_tickets: bool = False
) -> Callable[[_View], _View]:
    """Declare that the view needs a principal with *scope*."""
    return _declare(Permission(scope, is_page, is_connection, takes_tickets))


def requires_token() -> Callable[[_View], _View]:
    """Declare that the view needs a bearer token, of any scope.

    The view checks the scope of each action.
    """
    return _declare(Permission(ANY, takes_only_tokens=True))


def public(*, is_page: bool = False) -> Callable[[_View], _View]:
    """Declare that the view needs no principal."""
    return _declare(Permission(None, is_page))


def _declare(permission: Permission) -> Callable[[_View], _View]:
    def declare(view: _View) -> _View:
        view.permission = permission  # type: ignore[attr-defined]
        return view

    return declare


class DeclaringFlask(Flask):
    """A Flask app in which every route declares its permission."""

    def add_url_rule(
        self,
        rule: str,
        endpoint: str | None = None,
        view_func: RouteCallable | None = None,
        provide_automatic_options: bool | None = None,
        **options: Any,
    ) -> None:
        """Register a route, as Flask does. Raises UndeclaredRoute."""
        _of_view(view_func or self.view_functions.get(endpoint or ""), rule)
        super().add_url_rule(rule, endpoint, view_func, provide_automatic_options, **options)


def _of_view(view: RouteCallable | None, route: str) -> Permission:
    found = getattr(view, "permission", None)
    if not isinstance(found, Permission):
        raise UndeclaredRoute(f"{route}: the route declares no permission; put @requires(SCOPE) or @public() on it")
    return found


# --- of a request -----------------------------------------------------------------------------------------------------


def of_request() -> Permission:
    """Return the permission that the request needs.

    If no view will run, because the path has no route or the route does not take the method, the method decides on the
    scope. So a response to an unauthenticated client does not reveal which paths exist.
    """
    found = _at_path() or _near_path()
    is_for_view = request.endpoint is not None and request.method != "OPTIONS"  # Flask answers OPTIONS by itself
    if is_for_view or found.scope is None:
        return found
    return replace(found, scope=READ if request.method in SAFE_METHODS else WRITE)


def _at_path() -> Permission | None:
    """Return the permission that the path's route declares.

    The route counts even if it takes another method or protocol than the request's.
    """
    if request.endpoint is not None:
        return _of_endpoint(request.endpoint)
    for scheme in ("http", "ws"):
        adapter = current_app.url_map.bind("", url_scheme=scheme)
        for method in sorted(adapter.allowed_methods(request.path)):
            with suppress(HTTPException):  # the route speaks the other protocol
                return _of_endpoint(adapter.match(request.path, method)[0])
    return None


def _near_path() -> Permission:
    """Return the permission of a path without a route, from similar routes.

    The path is public below a public route that takes any path. If its first segment serves programs, it is not a page.
    """
    if any(found.scope is None and _is_below(rule) for rule, found in _declared()):
        return Permission(None)
    segment = _first_segment(request.path)
    neighbours = [found for rule, found in _declared() if _first_segment(rule) == segment]
    return Permission(READ, is_page=all(found.is_page for found in neighbours))


def _is_below(rule: str) -> bool:
    fixed, argument, _ = rule.partition("<")
    return bool(argument) and request.path.startswith(fixed)


def _first_segment(path: str) -> str:
    return path.split("/")[1]


def _declared() -> Iterator[tuple[str, Permission]]:
    for rule in current_app.url_map.iter_rules():
        yield rule.rule, _of_endpoint(rule.endpoint)


def _of_endpoint(endpoint: str) -> Permission:
    return _of_view(current_app.view_functions.get(endpoint), endpoint)
