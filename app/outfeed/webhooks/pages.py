"""/admin/webhooks: add and change webhooks, and see their deliveries.

Each action is that of a command of `outfeed webhook`.
"""

from __future__ import annotations

from flask import Blueprint, render_template, request
from flask.typing import ResponseReturnValue

from outfeed.errors import NameTaken, NotBlocked, Overtaken, TargetForbidden
from outfeed.http import forms, limits
from outfeed.http.admin import Secret, actor, done, secret_page, unconfirmed
from outfeed.http.forms import Form
from outfeed.http.permission import requires
from outfeed.http.services import services
from outfeed.http.status import address
from outfeed.principal import ADMIN
from outfeed.text import check_short_name, sentence
from outfeed.webhooks import store
from outfeed.webhooks.blocked import describe_events
from outfeed.webhooks.delivery_log import store as delivery_log
from outfeed.webhooks.message import check_secret, new_secret
from outfeed.webhooks.operations import MAX_BATCH, Posted, Webhooks, parsed_types
from outfeed.webhooks.store import OnRejection, Webhook, WebhookState
from outfeed.webhooks.target import check_url

PAGE, ONE = "webhook_pages.show", "webhook_pages.show_one"
POSTS = 50  # of the delivery log, on a page
POLICIES = (
    ("retry", "Retry", "Later events wait until the target accepts it."),
    ("skip", "Skip after 5 rejections", "A warning names the skipped event."),
)
webhook_pages = Blueprint("webhook_pages", __name__, url_prefix="/admin/webhooks")


@webhook_pages.get("")
@requires(ADMIN, is_page=True)
def show() -> ResponseReturnValue:
    """Show operators every webhook, and the form that adds one."""
    return _page(_form())


@webhook_pages.post("")
@requires(ADMIN, is_page=True)
def add() -> ResponseReturnValue:
    """Add a webhook, and show its secret once."""
    form = _form()
    with form.catch(name=NameTaken, url=TargetForbidden):
        given = forms.read(
            name=check_short_name, url=_url, types=parsed_types, batch=forms.optional(_batch), on_rejection=OnRejection,
            secret=forms.optional(check_secret),
        )  # fmt: skip
        warning = _warning_of(given["url"])
        name, own = given["name"], given["secret"]
        secret = own or new_secret()
        store.add(
            services().database, name, given["url"], types=given["types"], secret=secret, batch=given["batch"] or 0,
            on_rejection=given["on_rejection"], by=actor(),
        )  # fmt: skip
        if own:
            return done(f"Webhook {name} is active.", ONE, warning=warning, name=name)
        return _secret_page(f"Webhook {name} is active", name, secret, warning)
    return _page(form), 422


@webhook_pages.get("/<name>")
@requires(ADMIN, is_page=True)
def show_one(name: str) -> ResponseReturnValue:
    """Show one webhook, its settings and its delivery log."""
    return _one(store.find(services().database, name))


@webhook_pages.post("/edit")
@requires(ADMIN, is_page=True)
def edit() -> ResponseReturnValue:
    """Change the address, the types or the rejection policy of a webhook."""
    found = _named()
    form = _form_of(found)
    with form.catch(url=TargetForbidden):
        given = forms.read(url=forms.optional(_url), types=parsed_types, on_rejection=OnRejection)
        now = {"url": given["url"] or found.url, "types": given["types"], "on_rejection": given["on_rejection"]}
        changes = {field: value for field, value in now.items() if value != getattr(found, field)}
        warning = _warning_of(changes["url"]) if "url" in changes else ""
        if changes:
            store.edit(services().database, found.name, **changes, by=actor())
        return done(f"Changed webhook {found.name}.", ONE, warning=warning, name=found.name)
    return _one(found, form), 422


@webhook_pages.post("/pause")
@requires(ADMIN, is_page=True)
def pause() -> ResponseReturnValue:
    """Pause a webhook."""
    name = _named().name
    store.pause(services().database, name, by=actor())
    return done(f"Webhook {name} is paused. Its events are kept.", ONE, name=name)


@webhook_pages.post("/resume")
@requires(ADMIN, is_page=True)
def resume() -> ResponseReturnValue:
    """Resume a webhook, or retry at once."""
    found = store.resume(services().database, _named().name, by=actor())
    return done(f"Webhook {found.name} resumes after seq {found.seq:,}.", ONE, name=found.name)


@webhook_pages.post("/test")
@requires(ADMIN, is_page=True)
def test() -> ResponseReturnValue:
    """Post one test message to a webhook now."""
    name = _named().name
    if refusal := limits.admit_export():  # it may take as long as an export
        return refusal
    return _answered(name, _webhooks().test(name, actor()), "the test")


@webhook_pages.post("/send-again")
@requires(ADMIN, is_page=True)
def send_again() -> ResponseReturnValue:
    """Post the events of a logged post again."""
    found = _named()
    form = Form()
    if refusal := limits.admit_export():
        return refusal
    with form.catch(post=Overtaken):
        post = forms.read(post=_number)["post"]
        return _answered(found.name, _webhooks().send_again(found.name, post, actor()), f"post {post}")
    return _refused(found, form)


@webhook_pages.post("/rotate")
@requires(ADMIN, is_page=True)
def rotate() -> ResponseReturnValue:
    """Give a webhook a new secret, after a confirmation, and show it once."""
    name = _named().name
    effects = [
        "Posts are signed with the old and the new secret for 24 hours.",
        "A secret from before the old one ends at once.",
    ]
    if page := unconfirmed(f"Give {name} a new secret?", effects, "Make a new secret", ONE, name=name):
        return page
    secret = new_secret()
    store.rotate(services().database, name, secret, by=actor())
    return _secret_page(f"New secret of {name}", name, secret)


@webhook_pages.post("/skip")
@requires(ADMIN, is_page=True)
def skip() -> ResponseReturnValue:
    """Skip the event that blocks a webhook, after a confirmation."""
    found = _named()
    blocking, form = _webhooks().blocking(found), Form()
    with form.catch(action=NotBlocked):
        if not blocking:
            raise NotBlocked(f"no event blocks webhook {found.name} now")
        described, last_seq = describe_events(blocking), blocking[-1].seq
        effects = [f"The target never gets {described}.", "The next event is posted at once."]
        decided = {"seq": str(last_seq)}
        question = f"Skip an event of {found.name}?"
        if page := unconfirmed(question, effects, "Skip it", ONE, decided=decided, name=found.name):
            return page
        if forms.read(seq=_number)["seq"] != last_seq:
            raise NotBlocked(f"another event blocks webhook {found.name} now: {described}")
        store.skip(services().database, found, blocking, by=actor())
        return done(f"Webhook {found.name} skipped {described}.", ONE, name=found.name)
    return _refused(found, form)


@webhook_pages.post("/remove")
@requires(ADMIN, is_page=True)
def remove() -> ResponseReturnValue:
    """Remove a webhook, after a confirmation."""
    found = _named()
    effects = [
        f"The server posts nothing more to {address(found.url)}. {found.lag:,} events were not delivered.",
        "Its secret, its position and its delivery log are deleted.",
    ]
    if page := unconfirmed(f"Remove {found.name}?", effects, f"Remove {found.name}", ONE, name=found.name):
        return page
    store.remove(services().database, found.name, by=actor())
    return done(f"Removed webhook {found.name}.", PAGE)


def _webhooks() -> Webhooks:
    return Webhooks(services().database, services().settings)


def _named() -> Webhook:
    """Return the webhook that the form names. Raises UnknownName."""
    return store.find(services().database, request.form.get("name", ""))


def _url(value: str) -> str:
    check_url(value)
    return value


def _warning_of(url: str) -> str:
    """Return a warning if the host has no address yet. Raises TargetForbidden."""
    warning = _webhooks().warning_of(url)
    return sentence(warning) if warning else ""


def _batch(value: str) -> int:
    if not value.isascii() or not value.isdigit() or not 1 <= int(value) <= MAX_BATCH:
        raise ValueError(f"must be a number from 1 to {MAX_BATCH:,} (got {value!r:.20})")
    return int(value)


def _number(value: str) -> int:
    if not value.isascii() or not value.isdigit() or len(value) > 18:
        raise ValueError("must be the number of a post")
    return int(value)


def _answered(name: str, posted: Posted, what: str) -> ResponseReturnValue:
    """Redirect to the webhook's page, which shows the target's answer."""
    answer = posted.answer
    if answer.is_delivered:
        return done(f"The target accepted {what}: {answer.status} in {posted.millis:,} ms.", ONE, name=name)
    return done("", ONE, warning=f"The target did not accept {what}: {answer}.", name=name)


def _secret_page(title: str, name: str, secret: str, warning: str = "") -> ResponseReturnValue:
    note = "The target checks the signature of each post with it."
    return secret_page(title, [Secret("Secret", secret)], ONE, note=note, warning=warning, name=name)


def _form() -> Form:
    return Form(on_rejection=OnRejection.RETRY.value)


def _form_of(found: Webhook) -> Form:
    """Return the form that changes the webhook.

    It leaves out an address with a part that may be secret.
    """
    shown = found.url if address(found.url) == found.url else ""
    return Form(url=shown, types=", ".join(found.types), on_rejection=found.on_rejection.value)


def _page(form: Form) -> str:
    found = store.list_webhooks(services().database)
    return render_template("webhooks.html", webhooks=found, form=form, policies=POLICIES, max_batch=MAX_BATCH)


def _refused(found: Webhook, form: Form) -> ResponseReturnValue:
    """Return the page with the reason why an action is refused."""
    return _one(found, problem=" ".join(form.errors.values())), 422


def _one(found: Webhook, form: Form | None = None, problem: str = "") -> str:
    database, before = services().database, request.args.get("before", type=_number)
    posts = delivery_log.read_page(database, found.name, POSTS + 1, before)
    blocking = _webhooks().blocking(found)
    return render_template(
        "webhook.html", webhook=found, form=form or _form_of(found), policies=POLICIES, problem=problem,
        posts=posts[:POSTS], older=posts[POSTS - 1].id if len(posts) > POSTS else None,
        attempts=delivery_log.attempts(database, found.name),
        blocking=describe_events(blocking) if blocking else "", is_paused=found.state == WebhookState.PAUSED,
    )  # fmt: skip
