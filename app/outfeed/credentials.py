"""Well-known credentials: one table of their shapes.

The expressions of CREDENTIAL and HINTS are made from the table. No I/O.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

_WORD = r"(?<![\w-])"  # begins at the start of a word, so that no text takes more than a few passes
_LETTER = r"(?<![A-Za-z0-9])"
_ALNUM = r"[A-Za-z0-9]{16,}"
_RUN = r"[\w-]{16,}"
_HEX = r"[0-9a-f]{32}(?![0-9a-f])"
# The letters at which a search for hints may stop: the rarest in events first, and letters that several marks share
# before others. `_` is special: see `Shape.hints`.
_RARE = "~=AGKJBQXVHRPNSLFDEIMOUWCYTZqxjvkbzgyfwhp/:lunmdcrsotiea._- 9876543210"


class Shape(NamedTuple):
    """One kind of credential: *before*, one of *marks*, then *after*.

    *near* must match right after the letter of a mark at which a search stops. It narrows a mark that is common.
    """

    marks: tuple[str, ...]
    after: str = _RUN
    before: str = _WORD
    near: str = ""
    is_any_case: bool = False
    shows_mark: bool = False

    @property
    def pattern(self) -> str:
        """Regular expression for the whole credential."""
        if self.shows_mark:
            return f"{self.before}(?:{'|'.join(f'(?<={re.escape(mark)})' for mark in self.marks)}){self.after}"
        flags = "ai" if self.is_any_case else ""
        return f"{self.before}(?{flags}:{'|'.join(map(re.escape, self.marks))}){self.after}"

    def hints(self) -> Iterator[tuple[str, str]]:
        """Yield one letter of each mark and the expression around it.

        A search stops only at these letters.
        """
        for mark in self.marks:
            if mark.endswith("_"):  # names of fields have many of these, and rarely such a long text after one
                yield "_", r"[\w-]{16}"
                continue
            place = min(range(len(mark)), key=lambda index: _RARE.index(mark[index]))
            ahead, behind = self._folded(mark[place + 1 :]), self._folded(mark) if place else ""
            around = ahead + f"(?<={self._edge}{behind})" * bool(behind) + self.near
            yield from ((letter, around) for letter in {mark[place], self._swapped(mark[place])})

    @property
    def _edge(self) -> str:
        return self.before if self.before in (_WORD, _LETTER) else ""

    def _folded(self, text: str) -> str:
        return "".join(
            f"[{letter}{self._swapped(letter)}]" if self._swapped(letter) != letter else re.escape(letter)
            for letter in text
        )

    def _swapped(self, letter: str) -> str:
        return letter.swapcase() if self.is_any_case else letter


SHAPES = {
    "private key": Shape(
        ("-----BEGIN ",),
        r"[A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----"
        r"[\s\S]*?(?:-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----|\Z)",
        before="",
    ),
    "age": Shape(("AGE-SECRET-KEY-1", "AGE-PLUGIN-")),
    "JWT, signed cookie": Shape(("eyJ",), r"[\w-]{6,}\.[\w-]{6,}(?:\.[\w-]*)*", before=_LETTER),
    "bearer": Shape(
        ("bearer ",), r" *(?:[\w.~+/=-]{16,}|(?=[a-zA-Z_.~+/=-]*[0-9])[\w.~+/=-]{6,})", is_any_case=True
    ),
    "basic": Shape(
        ("basic ",), r" *(?=[a-zA-Z+/]*[0-9=])[A-Za-z0-9+/]{8,}={0,2}(?![\w+/])", is_any_case=True
    ),
    "user and password in a URL": Shape(
        ("://",), r"""[^/\s:@"']{0,200}:[^/\s@"']{1,200}(?=@)""", "", near=r"(?=[^/\s]{0,1604}@)", shows_mark=True
    ),
    "Airtable": Shape((".",), r"[0-9a-f]{32,}", before=_WORD + "pat[A-Za-z0-9]{14}", near="(?=[0-9a-f]{32})"),
    "Alibaba, Tencent": Shape(("LTAI", "AKID"), _ALNUM),
    "Atlassian": Shape(("ATATT3", "ATCTT3", "ATBB")),
    "AWS": Shape(("AKIA", "ASIA", "ABIA", "ACCA"), r"[A-Z0-9]{16}(?![A-Za-z0-9])", before=_LETTER),
    "Azure": Shape(("AccountKey=", "SharedAccessKey="), r"[A-Za-z0-9+/]{16,}={0,2}", before=_LETTER),
    "Azure client": Shape(("Q~",), r"[\w.~-]{31,34}", before=r"(?<![\w.~-])[\w.~-]{3}[0-9]"),
    "Brevo": Shape(("xkeysib-", "xsmtpsib-")),
    "Buildkite, CircleCI, Docker": Shape(("bkua_", "CCIPAT_", "dckr_pat_", "dckr_oat_")),
    "Cloudflare": Shape(("v1.0-",), r"[0-9a-f]{24}-[0-9a-f]{32,}"),
    "DigitalOcean": Shape(("dop_v1_", "doo_v1_", "dor_v1_"), _ALNUM),
    "Discord": Shape((".",), r"[\w-]{6}\.[\w-]{27,}", before=_WORD + r"[MNO][\w-]{23,25}", near=r"(?=[\w-]{6}\.)"),
    "Figma, Fly, Linear, Netlify": Shape(("figd_", "fo1_", "fm1r_", "fm2_", "lin_api_", "lin_oauth_", "nfp_")),
    "GitHub": Shape(("ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_"), r"[A-Za-z0-9]{16,}\w*"),
    "GitLab": Shape(
        ("glpat-", "gldt-", "glrt-", "glcbt-", "glptt-", "glft-", "glimt-", "glagent-", "glsoat-", "glffct-", "gloas-")
    ),
    "Google": Shape(("AIza",), r"[\w-]{35}"),
    "Google OAuth": Shape(("ya29.", "GOCSPX-", "1//0")),
    "Grafana, Sentry": Shape(("glsa_", "glc_", "sntrys_", "sntryu_")),
    "Heroku, New Relic, Postman": Shape(("HRKU-", "NRAK-", "PMAK-")),
    "Hugging Face": Shape(("hf_", "api_org_"), _ALNUM),
    "Mailgun": Shape(("key-",), _HEX),
    "model providers": Shape(("sk-", "csk-"), r"[\w-]{20,}"),
    "more model providers": Shape(("gsk_", "r8_", "sk_", "lsv2_pt_", "lsv2_sk_"), _ALNUM),
    "others of these": Shape(("nvapi-", "pplx-", "tvly-", "xai-")),
    "extended private key": Shape(("xprv", "yprv", "zprv"), r"[A-Za-z0-9]{50,}"),
    "Notion": Shape(("ntn_", "secret_"), r"[A-Za-z0-9]{32,}"),
    "npm, RubyGems": Shape(("npm_", "rubygems_"), _ALNUM),
    "Outfeed": Shape(("outfeed_",), r"[\w-]{43}"),
    "PlanetScale, Pulumi, Supabase": Shape(("pscale_tkn_", "pscale_pw_", "sbp_", "sb_secret_")),
    "PyPI": Shape(("pypi-AgE",)),
    "SendGrid": Shape(("SG.",), r"[\w-]{16,}(?:\.[\w-]+)?"),
    "Shopify": Shape(("shpat_", "shpss_", "shpca_", "shppa_"), _ALNUM),
    "Slack": Shape(("xox",), r"[a-z](?:\.xox[a-z])?-[\w-]{10,}"),
    "Slack app": Shape(("xapp-",), r"[\w-]{10,}"),
    "Slack, Discord webhook": Shape(("hooks.slack.com/services/", "/api/webhooks/"), r"[\w/-]{20,}", before=""),
    "Square": Shape(("sq0atp-", "sq0csp-")),
    "Stripe": Shape(("sk_live_", "sk_test_", "rk_live_", "rk_test_"), _ALNUM),
    "Tailscale": Shape(("tskey-",)),
    "Telegram": Shape((":",), r"[\w-]{35}(?![\w-])", before=_WORD + "[0-9]{6,12}", near=r"(?<=[0-9]:)(?=[\w-]{35})"),
    "Terraform": Shape((".atlasv1.",), before=_WORD + "[A-Za-z0-9]{14}"),
    "Twilio": Shape(("SK",), _HEX, near=r"(?=[0-9a-f]{8})"),
    "Vault": Shape(("hvs.", "hvb.", "hvr.")),
    "webhook secret": Shape(("whsec_",), r"[A-Za-z0-9+/]{16,}={0,2}"),
}  # fmt: skip


def _hints() -> dict[str, str]:
    """Return expressions by their first letter: each credential has a match.

    `re` searches for these letters alone, so that a search stops at no other letter.
    """
    by_letter: dict[str, dict[str, None]] = {}
    for shape in SHAPES.values():
        for letter, around in shape.hints():
            by_letter.setdefault(letter, {})[around] = None
    return {letter: f"{re.escape(letter)}(?:{'|'.join(found)})" for letter, found in sorted(by_letter.items())}


CREDENTIAL = re.compile("|".join(shape.pattern for shape in SHAPES.values()))
HINTS = _hints()
