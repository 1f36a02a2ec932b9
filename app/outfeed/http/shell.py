"""The shell of all pages: theme, zone, density, and the manifest.

A cookie of the browser keeps each choice, so the pages need no script and no account for it.
"""

from __future__ import annotations

from flask import Blueprint, Response, jsonify, redirect, request
from flask.typing import ResponseReturnValue

from outfeed.http import addresses
from outfeed.http.assets import address
from outfeed.http.permission import public
from outfeed.http.problems import answer

# The choices of each preference. The first one is the default.
PREFERENCES = {"theme": ("system", "light", "dark"), "zone": ("local", "utc"), "density": ("normal", "compact")}
COOKIE = "outfeed_{}"
YEAR_SECS = 365 * 86_400
GROUNDS = {"light": "#f4f6f8", "dark": "#0e1217"}  # --ground in outfeed.css and dark.css
ICONS = (
    ("icon-192.png", "192x192", "any"),
    ("icon-512.png", "512x512", "any"),
    ("icon-512.png", "512x512", "maskable"),
)

shell = Blueprint("shell", __name__)


@shell.app_context_processor
def variables() -> dict[str, object]:
    """Give every template the preferences with the browser's choices."""
    chosen = {name: preference(name) for name in PREFERENCES}
    return {"preferences": PREFERENCES, "chosen": chosen, "grounds": GROUNDS}


def preference(name: str) -> str:
    """Return the browser's choice for the preference, or the default."""
    choices = PREFERENCES[name]
    chosen = request.cookies.get(COOKIE.format(name))
    return chosen if chosen in choices else choices[0]


@shell.post("/preferences")
@public(is_page=True)
def choose() -> ResponseReturnValue:
    """Keep the choice of a form in a cookie, and return to the form's page."""
    given = {name: request.form[name] for name in PREFERENCES if request.form.get(name) in PREFERENCES[name]}
    if not given:
        choices = "; ".join(f"{name}: {', '.join(values)}" for name, values in PREFERENCES.items())
        return answer(422, f"Choose one of these preferences. {choices.capitalize()}.")
    response = redirect(addresses.local(request.form.get("next", "")), 303)
    for name, value in given.items():
        response.set_cookie(
            COOKIE.format(name), value, max_age=YEAR_SECS, path=request.script_root or "/",
            secure=request.is_secure, httponly=True, samesite="Lax",
        )  # fmt: skip
    return response


@shell.get("/manifest.webmanifest")
@public()
def manifest() -> Response:
    """Return the manifest with which browsers install the pages as an app."""
    icons = [
        {"src": address(name), "sizes": sizes, "type": "image/png", "purpose": purpose}
        for name, sizes, purpose in ICONS
    ]
    response = jsonify(
        name="Outfeed",
        short_name="Outfeed",
        id=f"{request.script_root}/",
        start_url=f"{request.script_root}/swarm/live",
        scope=f"{request.script_root}/",
        display="standalone",
        background_color=GROUNDS["light"],
        theme_color=GROUNDS["light"],
        icons=icons,
    )
    response.mimetype = "application/manifest+json"
    return response
