"""The tokens of a long run: of several users, by keys that rotate, from a team that is renamed."""

from dataclasses import dataclass
from math import inf
from random import Random
from secrets import token_hex

from long_runs.scaled import ScaledClock

from fastapi_cloudflare_access.errors import UnknownKey
from fastapi_cloudflare_access.testing import FORGERIES, FakeTeam
from fastapi_cloudflare_access.testing._issuer import SigningKey

FORGED = [name for name, forgery in FORGERIES.items() if forgery.error is not UnknownKey]
"""Forgeries that cause no fetch: unknown keys have a limit, and the run sends them at their own pace."""
MARGIN = 2.0
"""Seconds of the clock around a log-out in which a token may be refused or not."""


@dataclass(eq=False)
class Token:
    """A valid token.

    Attributes:
        text: The token.
        email: Its user.
        issued: Its `iat`.
        ends: Its `exp`.
        revoked: Time at which it was revoked.
    """

    text: str
    email: str
    issued: float
    ends: float
    revoked: float = inf


class Issuing:
    """The edge of a team: signs tokens, and knows which ones are revoked.

    Attributes:
        team: The team.
        signer: The key that signs now; after a planned rotation, the new key signs later.
    """

    def __init__(self, team: FakeTeam[ScaledClock], *, lifetime: tuple[float, float], seed: int = 1) -> None:
        """Begin with the current key; `lifetime` is the range of seconds that a token lives."""
        self.team = team
        self.signer: SigningKey = team.current
        self.chance = Random(seed)
        self._lifetime = lifetime
        self._logged_out: dict[str, float] = {}
        self._blocked: dict[str, float] = {}
        self._stranger = SigningKey.generate()

    @property
    def now(self) -> float:
        """The time of the clock."""
        return self.team.clock.now()

    def token(self, email: str, *, first: bool = False) -> Token:
        """Return a new token of a user; `first` spreads the ends of the first tokens."""
        shortest, longest = self._lifetime
        lifetime = max(2, int(self.chance.uniform(shortest / 4 if first else shortest, longest)))
        now = self.now
        text = self.team.user_token(email, key=self.signer, expires_in=lifetime)
        return Token(text, email, int(now), int(now) + lifetime)

    def service_token(self) -> str:
        """Return a new token of a service."""
        return self.team.service_token("bot", key=self.signer)

    def forged(self) -> tuple[str, str]:
        """Return the name of a forgery, and the token."""
        name = self.chance.choice(FORGED)
        return name, self.team.forge(name)

    def of_unknown_key(self) -> str:
        """Return a token that is right but for its key."""
        claims = self.team.user_claims("eve@example.com")
        return self.team.sign(claims, header={"alg": "RS256", "kid": token_hex(32)}, key=self._stranger)

    def begin_revocation(self, token: Token, action: str) -> None:
        """Note that a token, or the user who has it, is about to be revoked."""
        token.revoked = self.now
        if action == "log_out":
            self._logged_out[token.email] = inf
        if action == "block":
            self._blocked[token.email] = inf

    def end_revocation(self, token: Token, action: str, seconds: float) -> None:
        """Note that the revocation was stored; a block ends so many seconds after that, at the latest."""
        if action == "log_out":
            self._logged_out[token.email] = self.now + MARGIN
        if action == "block":
            self._blocked[token.email] = self.now + seconds + 2 * MARGIN

    def admitted_from(self, email: str) -> float:
        """Return the time from which new tokens of a user are accepted."""
        return max(self._blocked.get(email, 0.0), self._logged_out.get(email, 0.0) + MARGIN)

    def is_valid(self, token: Token) -> bool | None:
        """Check whether a token must be accepted; None if it need not be, and may be."""
        now = self.now
        concerned = token.issued <= self._logged_out.get(token.email, 0.0) or now <= self._blocked.get(token.email, 0.0)
        return True if now < token.ends and token.revoked == inf and not concerned else None
