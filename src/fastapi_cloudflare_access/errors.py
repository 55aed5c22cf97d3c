"""Everything that can be wrong, as one tree.

```
AccessError
├── ConfigurationError        a setting is missing or wrong            at construction
├── CredentialError           something is wrong with the credential   401
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
├── AuthorizationError        a valid caller who may not               403
│   ├── WrongCallerType
│   └── PolicyDenied
└── TemporarilyUnavailable    cannot be decided right now              503
    ├── KeysUnavailable
    └── KeyUnconfirmed
```

Each class carries a stable `reason` code for logs, metrics and handlers. Messages are written for operators: they
never hold a token or a claim.
"""

from typing import ClassVar


class AccessError(Exception):
    """The root of every error this package raises.

    Attributes:
        reason: A stable code, `snake_case`, for logs and metrics.
        unverified: Whether the reason comes from claims whose signature was not verified, since the key is unknown.
    """

    reason: ClassVar[str] = "access_error"
    unverified: bool = False


class ConfigurationError(AccessError, ValueError):
    """A setting is missing or wrong; the message says what to set."""

    reason = "configuration_error"


class CredentialError(AccessError):
    """Something is wrong with the credential the request carries, or it carries none."""

    reason = "invalid_credential"


class MissingToken(CredentialError):
    """Neither the assertion header nor the cookie is there."""

    reason = "missing_token"


class AmbiguousToken(CredentialError):
    """More than one assertion header, or cookies of that name with different values."""

    reason = "ambiguous_token"


class MalformedToken(CredentialError):
    """Shape, size, encoding, header or JSON of the token are wrong (RFC 7515 section 5.2, RFC 7519 section 7.2)."""

    reason = "malformed_token"


class UnsupportedAlgorithm(CredentialError):
    """The JOSE header names an algorithm other than RS256 (RFC 8725 section 3.1)."""

    reason = "unsupported_algorithm"


class UnknownKey(CredentialError):
    """No key of the team has this `kid`, after looking for it as far as it was worth a fetch."""

    reason = "unknown_key"


class InvalidSignature(CredentialError):
    """The signature does not belong to this header and payload."""

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
    """`type` is not `app`: the team signs other tokens with the same keys, and none of them is a login to an app."""

    reason = "wrong_type"


class TokenExpired(CredentialError):
    """`exp` has passed (RFC 7519 section 4.1.4)."""

    reason = "token_expired"


class TokenNotYetValid(CredentialError):
    """`nbf` or `iat` lies ahead (RFC 7519 sections 4.1.5 and 4.1.6)."""

    reason = "token_not_yet_valid"


class TokenRevoked(CredentialError):
    """The token or its session was revoked."""

    reason = "token_revoked"


class AuthorizationError(AccessError):
    """The caller is who they say, and may not."""

    reason = "caller_refused"


class WrongCallerType(AuthorizationError):
    """A service where a user is wanted, or a user where a service is."""

    reason = "wrong_caller"


class PolicyDenied(AuthorizationError):
    """A policy refused the caller."""

    reason = "forbidden"


class TemporarilyUnavailable(AccessError):
    """Nobody can tell right now whether the token is good.

    Attributes:
        retry_after: Seconds after which another try makes sense.
    """

    reason = "cannot_decide"

    def __init__(self, message: str, *, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class KeysUnavailable(TemporarilyUnavailable):
    """There are no keys at all, or they are older than the hard limit."""

    reason = "keys_unavailable"


class KeyUnconfirmed(TemporarilyUnavailable):
    """The key of an otherwise fitting token is not known, and cannot be looked for right now."""

    reason = "key_unconfirmed"
