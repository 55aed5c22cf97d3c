"""The error classes, as one tree.

```
AccessError
├── ConfigurationError        a setting is missing or wrong              at construction
├── CredentialError           the credential is missing or not valid     401
│   ├── MissingToken
│   ├── AmbiguousToken
│   ├── MalformedToken
│   ├── UnsupportedAlgorithm
│   ├── UnknownKey
│   ├── InvalidSignature
│   ├── InvalidClaims
│   ├── WrongIssuer
│   ├── WrongAudience
│   ├── WrongType
│   ├── TokenExpired
│   ├── TokenNotYetValid
│   └── TokenRevoked
├── AuthorizationError        a valid token, its caller not authorized   403
│   ├── WrongCallerType
│   └── PolicyDenied
├── CrossOriginRequest        a page of another origin sent the request  403
└── TemporarilyUnavailable    the token cannot be checked right now      503
    ├── KeysUnavailable
    ├── KeyUnconfirmed
    ├── IdentityUnavailable
    └── RevocationsUnavailable
```

Each class carries a stable `reason` code for logs, metrics and handlers. Messages are for operators and never
contain a token or a claim.
"""

from typing import ClassVar


class AccessError(Exception):
    """The root of every error that this package raises.

    Attributes:
        reason: A stable code, `snake_case`, for logs and metrics.
        unverified: Whether the reason comes from unverified claims, since the key is unknown.
    """

    reason: ClassVar[str] = "access_error"
    unverified: bool = False


class ConfigurationError(AccessError, ValueError):
    """A setting is missing or wrong; the message says what to set."""

    reason = "configuration_error"


class CredentialError(AccessError):
    """The request carries no token, or one that is not valid."""

    reason = "invalid_credential"


class MissingToken(CredentialError):
    """The request has neither the assertion header nor the cookie."""

    reason = "missing_token"


class AmbiguousToken(CredentialError):
    """The request has more than one assertion header, or cookies of that name with different values."""

    reason = "ambiguous_token"


class MalformedToken(CredentialError):
    """The token has a wrong shape, size, encoding, JOSE header or JSON (RFC 7515 section 5.2, RFC 7519 section 7.2)."""

    reason = "malformed_token"


class UnsupportedAlgorithm(CredentialError):
    """The JOSE header names an algorithm other than RS256 (RFC 8725 section 3.1)."""

    reason = "unsupported_algorithm"


class UnknownKey(CredentialError):
    """No key of the team has this `kid`; the keys were fetched for it, or the `kid` is in the negative cache.

    A token with an unknown `kid` and a payload of more than 8 KiB is also rejected with this error, marked
    `unverified`: such a payload is not read before its signature is verified, so no fetch is made for it.
    """

    reason = "unknown_key"


class InvalidSignature(CredentialError):
    """The signature does not match the header and the payload."""

    reason = "invalid_signature"


class InvalidClaims(CredentialError):
    """A claim is missing or of the wrong type, or the caller is neither a user nor a service."""

    reason = "invalid_claims"


class WrongIssuer(CredentialError):
    """`iss` is not the configured team."""

    reason = "wrong_issuer"


class WrongAudience(CredentialError):
    """`aud` holds none of the configured AUD tags."""

    reason = "wrong_audience"


class WrongType(CredentialError):
    """`type` is not `app`: the team signs other tokens with the same keys, and they are not logins to an app."""

    reason = "wrong_type"


class TokenExpired(CredentialError):
    """`exp` has passed (RFC 7519 section 4.1.4)."""

    reason = "token_expired"


class TokenNotYetValid(CredentialError):
    """`nbf` or `iat` is in the future (RFC 7519 sections 4.1.5 and 4.1.6)."""

    reason = "token_not_yet_valid"


class TokenRevoked(CredentialError):
    """The token was revoked: by `access.revocations`, or at Cloudflare, which the app learns from get-identity."""

    reason = "token_revoked"


class AuthorizationError(AccessError):
    """The token is valid, and its caller is not authorized."""

    reason = "caller_refused"


class WrongCallerType(AuthorizationError):
    """The caller is a service and the route is for users, or the other way round."""

    reason = "wrong_caller"


class PolicyDenied(AuthorizationError):
    """A policy refused the caller.

    Attributes:
        policy: The name of the policy; None if no policy was asked.
    """

    reason = "forbidden"

    def __init__(self, message: str, *, policy: str | None = None) -> None:
        super().__init__(message)
        self.policy = policy


class CrossOriginRequest(AccessError):
    """A page of another origin sent the request, or may have sent it; `SameOrigin` refuses it."""

    reason = "cross_origin"


class TemporarilyUnavailable(AccessError):
    """The token cannot be checked right now.

    Attributes:
        retry_after: Seconds after which the client should try again.
    """

    reason = "cannot_decide"

    def __init__(self, message: str, *, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class KeysUnavailable(TemporarilyUnavailable):
    """There are no keys, or they are older than `max_staleness`."""

    reason = "keys_unavailable"


class KeyUnconfirmed(TemporarilyUnavailable):
    """The `kid` of an otherwise acceptable token is unknown, and the keys cannot be fetched for it right now."""

    reason = "key_unconfirmed"


class IdentityUnavailable(TemporarilyUnavailable):
    """get-identity is needed for this request, and cannot be asked right now."""

    reason = "identity_unavailable"


class RevocationsUnavailable(TemporarilyUnavailable):
    """The store of revocations cannot be used.

    A request gets it with `revocations_unavailable="closed"`. A call of `access.revocations` raises it if the
    revocation was not stored.
    """

    reason = "revocations_unavailable"
