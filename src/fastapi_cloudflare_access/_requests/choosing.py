"""Choice among several authenticators, for apps that several teams or applications reach."""

from collections.abc import Sequence
from typing import Any, cast

from starlette.requests import HTTPConnection
from starlette.types import Scope

from fastapi_cloudflare_access._requests.authentication import OUTCOMES, Authenticator, are_same
from fastapi_cloudflare_access._requests.open_streams import Check, Validity
from fastapi_cloudflare_access._verification.request_token import find_token
from fastapi_cloudflare_access._verification.strict import EncodingProblem, parse_json_object
from fastapi_cloudflare_access._verification.token import MAX_UNVERIFIED_PAYLOAD, parse, wrong_audience
from fastapi_cloudflare_access._verifier import Outcome
from fastapi_cloudflare_access.claims import ServiceClaims, UserClaims
from fastapi_cloudflare_access.errors import AccessError, CredentialError, MalformedToken, WrongIssuer
from fastapi_cloudflare_access.identity import Identity
from fastapi_cloudflare_access.policies import Decision, Policy


class ChoosingAuthenticator(Authenticator[Any]):
    """Authenticates each request by one of several authenticators.

    The unverified `iss` and `aud` of a token only choose the authenticator; that one verifies the whole token. If both
    fit several, the first of them is chosen.
    """

    def __init__(self, authenticators: Sequence[Authenticator[Any]]) -> None:
        """Create it over these authenticators, of which there is at least one."""
        self._all = tuple(authenticators)
        super().__init__(self._all[0].verifier, self._all[0].listeners)

    @property
    def members(self) -> tuple[Authenticator[Any], ...]:
        """The authenticators that it chooses from."""
        return self._all

    @property
    def user_models(self) -> tuple[type[UserClaims], ...]:
        """The models of users' claims."""
        return tuple(dict.fromkeys(model for each in self._all for model in each.user_models))

    async def outcome(self, scope: Scope) -> Outcome[Any]:
        """Return the caller of a request, the error, or None without a token."""
        chosen = self._chosen(scope)
        return chosen if isinstance(chosen, AccessError) else await chosen.outcome(scope)

    async def identity(self, scope: Scope, user: UserClaims) -> Identity | AccessError:
        """Return the identity of the verified user of a request, or why there is none."""
        chosen = self._chosen(scope)
        return chosen if isinstance(chosen, AccessError) else await chosen.identity(scope, user)

    def decision(self, policy: Policy, caller: Any, scope: Scope) -> Decision:
        """Return the decision of a policy by the token alone, by the settings of the chosen authenticator."""
        chosen = self._chosen(scope)
        return Decision.DENY if isinstance(chosen, AccessError) else chosen.decision(policy, caller, scope)

    async def decide(self, policies: Sequence[Policy], caller: Any, scope: Scope) -> list[Decision] | AccessError:
        """Return the decision of each policy, by the settings of the chosen authenticator."""
        chosen = self._chosen(scope)
        return chosen if isinstance(chosen, AccessError) else await chosen.decide(policies, caller, scope)

    async def verify(self, token: str | bytes | None) -> UserClaims | ServiceClaims:
        """Return the caller that a token identifies.

        Raises:
            AccessError: The token is not valid, or its key cannot be fetched right now.
        """
        given = token.encode(errors="replace") if isinstance(token, str) else token
        chosen = self._choose(given) if isinstance(given, bytes) else self._all[0]
        if isinstance(chosen, AccessError):
            self._all[0].refuse_call(chosen, given or b"")
            raise chosen
        return await chosen.verify(token)

    def validity_of(self, caller: object) -> tuple[Authenticator[Any], Validity] | None:
        """Return the validity of claims that were verified in the current context, and by which authenticator."""
        return next((found for each in self._all if (found := each.validity_of(caller))), None)

    def add_check(self, check: Check, scope: Scope) -> None:
        """Remember a policy that admitted the caller of the current request, with the chosen authenticator."""
        chosen = cast("Authenticator[Any]", self._chosen(scope))  # it has verified the caller
        chosen.add_check(check, scope)

    def refuse(self, error: AccessError, connection: HTTPConnection) -> Exception:
        """Log a refusal, emit its event to the listeners of the chosen authenticator, and return the exception."""
        return self._speaker(connection).refuse(error, connection)

    def ignore(self, error: AccessError, connection: HTTPConnection) -> None:
        """Log and emit that a request goes on without a caller, although it has a token."""
        self._speaker(connection).ignore(error, connection)

    def _speaker(self, connection: HTTPConnection) -> Authenticator[Any]:
        """Return the authenticator whose listeners hear of a request: the chosen one, or else the first."""
        chosen = self._chosen(connection.scope)
        return self._all[0] if isinstance(chosen, AccessError) else chosen

    def _chosen(self, scope: Scope) -> Authenticator[Any] | AccessError:
        """Return the authenticator of a request, chosen once for its headers."""
        choices: Any = scope.setdefault(OUTCOMES, {})
        headers = scope["headers"]
        known, chosen = choices.get(self, (None, None))
        if not are_same(known, headers):
            try:
                token = find_token(headers, self.token_sources)
                chosen = self._all[0] if token is None else self._choose(token)
            except AccessError as problem:
                chosen = problem.with_traceback(None)
            choices[self] = headers, chosen
        return cast("Authenticator[Any] | AccessError", chosen)

    def _choose(self, token: bytes) -> Authenticator[Any] | AccessError:
        if not self._all[0].verifier.reads_tokens:  # the testing kit has fixed the caller
            return self._all[0]
        try:
            issuer, audience = _issuer_and_audience(token)
        except CredentialError as problem:
            problem.__cause__ = problem.__context__ = None
            return problem.with_traceback(None)
        settings = [(each, each.verifier.settings) for each in self._all]
        of_issuer = [pair for pair in settings if issuer in (pair[1].issuer, *pair[1].former_team_domains)]
        fitting = [each for each, of in of_issuer if not of.audience_tags.isdisjoint(audience)]
        if fitting:
            return fitting[0]
        error: CredentialError = wrong_audience([tag for _, of in of_issuer for tag in of.audience])
        if not of_issuer:
            error = WrongIssuer("the issuer is none of the configured teams")
        error.unverified = True
        return error


def _issuer_and_audience(token: bytes) -> tuple[str, list[str]]:
    """Return the unverified `iss` and `aud` of a token; what is not text is left out.

    Raises:
        CredentialError: The token is malformed, or its payload is too long to be read before it is verified.
    """
    payload = parse(token).payload
    if len(payload) > MAX_UNVERIFIED_PAYLOAD:
        raise MalformedToken("the payload is too long to choose a team by it")
    try:
        claims = parse_json_object(payload)
    except EncodingProblem as problem:
        raise MalformedToken(f"the payload is malformed: {problem}") from None
    issuer, audience = claims.get("iss"), claims.get("aud")
    tags = cast("list[object]", audience) if isinstance(audience, list) else [audience]
    return issuer if isinstance(issuer, str) else "", [tag for tag in tags if isinstance(tag, str)]
