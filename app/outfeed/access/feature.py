"""The feature for access control."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, ClassVar

from outfeed.config import Settings
from outfeed.errors import UnknownName
from outfeed.feature import AdminFact, AdminGroup, AdminPage, Feature, Process, SignIn, shared_grants

if TYPE_CHECKING:
    from flask import Blueprint, Flask

    from outfeed.access.rights import OriginRights
    from outfeed.store.database import Database


class AccessFeature(Feature):
    """Users, tokens, sessions and tickets, and the check of each request."""

    commands: ClassVar[Mapping[str, str]] = {
        "user": "access.user_commands:user",
        "token": "access.token_commands:token",
    }
    kept_tables = ("outfeed_user", "outfeed_token", "outfeed_sign_in_code", "outfeed_session", "outfeed_ticket")

    admin_pages = (
        AdminPage(AdminGroup.ACCESS, "Users", "user_pages.show", "People who sign in, and their roles."),
        AdminPage(AdminGroup.ACCESS, "Tokens", "token_pages.show", "Credentials of programs."),
    )

    def blueprints(self) -> Iterable[Blueprint]:
        from outfeed.access.sign_in import sign_in
        from outfeed.access.tickets import tickets
        from outfeed.access.token_pages import token_pages
        from outfeed.access.user_pages import user_pages

        return sign_in, tickets, user_pages, token_pages

    def admin_facts(self, process: Process) -> Mapping[str, AdminFact]:
        from outfeed.access.store import account, user

        users, tokens = user.list_all(process.database), account.list_tokens(process.database)
        return {
            "user_pages.show": AdminFact(f"{len(users):,}"),
            "token_pages.show": AdminFact(f"{len(tokens):,}"),
        }

    def init_app(self, app: Flask) -> None:
        from outfeed.access import auth

        auth.init_app(app)

    def part(self, process: Process) -> OriginRights:
        from outfeed.access.rights import OriginRights

        return OriginRights(process.database, shared_grants(process.settings), process.core)

    def check(self, settings: Settings) -> None:
        from outfeed.access.auth import check_key

        check_key(settings)

    def prepare(self, settings: Settings) -> None:
        from outfeed.access.auth import secret_key

        secret_key(settings)

    def sign_in(self, database: Database, url: str) -> SignIn:
        from outfeed.access.store import account

        if account.has_operator_with_password(database):
            return SignIn("Sign in:", f"{url}/login")
        code = account.create_code(database, account.CODE_LIFETIME)
        return SignIn("Sign in with this link, once:", f"{url}/login?code={code}")

    def issue_token(self, database: Database, name: str, scopes: tuple[str, ...]) -> str:
        from outfeed.access.store import account

        self.revoke_token(database, name)
        return account.create_token(database, name, scopes)

    def create_token(self, database: Database, name: str, scopes: tuple[str, ...], by: str) -> str:
        from outfeed.access.store import account

        return account.create_token(database, name, scopes, by=by)

    def revoke_token(self, database: Database, name: str) -> None:
        from outfeed.access.store import account

        with suppress(UnknownName):
            account.revoke_token(database, name)
