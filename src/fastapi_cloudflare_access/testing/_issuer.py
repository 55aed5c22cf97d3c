"""An issuer like a Cloudflare Access team: its keys, its certs document, and the tokens that it signs.

The testing kit and the local Access use it; a protected app never loads it.
"""

from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any, Unpack

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from fastapi_cloudflare_access._verification.strict import EncodingProblem, parse_json_object
from fastapi_cloudflare_access._verification.token import parse
from fastapi_cloudflare_access.errors import ConfigurationError, CredentialError
from fastapi_cloudflare_access.protocols import Clock
from fastapi_cloudflare_access.testing._minting import Minter, ServiceOptions, UserOptions, as_json

KEY_LIFETIME = timedelta(weeks=7)
"""Lifetime of a key: six weeks as the current key, one week as the previous key."""


def base64url(data: bytes) -> str:
    """Encode without padding (RFC 7515 section 2)."""
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def compact_json(value: object) -> bytes:
    """Return compact JSON in UTF-8.

    Raises:
        ConfigurationError: The value cannot be encoded as JSON.
    """
    return as_json(value, what="the signed content")


@dataclass(frozen=True, slots=True)
class SigningKey:
    """An RSA-2048 key and its `kid`.

    Attributes:
        kid: The SHA-256 of the public key, 64 lower-case hexadecimal digits.
        private: The private key.
    """

    kid: str
    private: RSAPrivateKey

    @classmethod
    def generate(cls) -> "SigningKey":
        """Generate a new key, in about a tenth of a second."""
        return cls.of(generate_private_key(public_exponent=65_537, key_size=2048))

    @classmethod
    def of(cls, private: RSAPrivateKey) -> "SigningKey":
        """Return a signing key for an existing private key."""
        public = private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return cls(sha256(public).hexdigest(), private)

    def jwk(self) -> dict[str, str]:
        """Return the public key as a JWK (RFC 7517), as in the certs document."""
        numbers = self.private.public_key().public_numbers()
        e, n = (base64url(number.to_bytes((number.bit_length() + 7) // 8, "big")) for number in (numbers.e, numbers.n))
        return {"kid": self.kid, "kty": "RSA", "alg": "RS256", "use": "sig", "e": e, "n": n}

    def sign(self, data: bytes) -> bytes:
        """Sign with RSASSA-PKCS1-v1_5 and SHA-256 (RFC 7518 section 3.3)."""
        return self.private.sign(data, PKCS1v15(), hashes.SHA256())

    def certificate(self, issued_at: float) -> str:
        """Return a self-signed X.509 certificate of the key, in PEM."""
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "cloudflareaccess.com")])
        start = datetime.fromtimestamp(int(issued_at), UTC)
        builder = x509.CertificateBuilder(
            issuer_name=name,
            subject_name=name,
            public_key=self.private.public_key(),
            serial_number=int(self.kid[:32], 16) + 1,
            not_valid_before=start,
            not_valid_after=start + KEY_LIFETIME,
        )
        return builder.sign(self.private, hashes.SHA256()).public_bytes(Encoding.PEM).decode()


class Issuer:
    """A team that signs with its current key, and publishes the current and the previous key.

    Attributes:
        issuer: The team domain, an origin, as in the claim `iss`.
        audiences: The AUD tags of its applications.
        clock: The source of the times in tokens.
        current: The key that signs.
        previous: The previous key, or None after `withdraw`.
    """

    def __init__(
        self,
        issuer: str,
        *,
        name: str,
        audiences: tuple[str, ...],
        clock: Clock,
        new_key: Callable[[], SigningKey] = SigningKey.generate,
    ) -> None:
        """Create two keys; user and client ids depend on `name` alone, so they are the same in every run."""
        self.issuer = issuer
        self.name = name
        self.audiences = audiences
        self.clock = clock
        self._new_key = new_key
        self._issued: dict[str, float] = {}
        self._certificates: dict[str, str] = {}
        self._identities: dict[str, dict[str, Any]] = {}
        self._without_session: set[str] = set()
        self.previous: SigningKey | None = self._add_key()
        self.current = self._add_key()

    @property
    def audience(self) -> str:
        """The default AUD tag of tokens."""
        return self.audiences[0]

    @property
    def keys(self) -> tuple[SigningKey, ...]:
        """The published keys, the current one last."""
        return (self.previous, self.current) if self.previous else (self.current,)

    def rotate(self) -> None:
        """Create a new current key; the last one becomes the previous key."""
        self.previous, self.current = self.current, self._add_key()

    def withdraw(self) -> None:
        """Remove the previous key, as Cloudflare does seven days after a rotation."""
        self.previous = None

    def set_identity(self, email: str, **fields: Any) -> None:
        """Set fields of what get-identity has for a user, such as `groups=[{"id": "1", "name": "admins"}]`.

        Raises:
            ConfigurationError: A field cannot be encoded as JSON.
        """
        as_json(fields, what="the identity")
        self._identities[email] = {**self._identities.get(email, {}), **fields}

    def end_sessions(self, email: str) -> None:
        """End the sessions of a user, as a logout or a revocation does: get-identity then knows none of the tokens."""
        self._without_session.add(email)

    def identity_of(self, token: str) -> dict[str, Any] | None:
        """Return what get-identity has for a token; None if it is not a user's token, or has no session."""
        claims = self._own_claims(token)
        if claims is None or not isinstance(email := claims.get("email"), str) or email in self._without_session:
            return None
        return {**self._minter.identity(email), "user_uuid": claims["sub"], **self._identities.get(email, {})}

    def _own_claims(self, token: str) -> dict[str, Any] | None:
        """Return the claims of a token that a published key of this team signed, or None."""
        try:
            parsed = parse(token.encode("ascii"))
            key = next(key for key in self.keys if key.kid == parsed.kid)
            key.private.public_key().verify(parsed.signature, parsed.signing_input, PKCS1v15(), hashes.SHA256())
            return parse_json_object(parsed.payload)
        except (UnicodeEncodeError, CredentialError, EncodingProblem, StopIteration, InvalidSignature):
            return None

    def certs(self) -> dict[str, Any]:
        """Return the document at `<team domain>/cdn-cgi/access/certs`."""
        certs = [{"kid": key.kid, "cert": self._certificate(key)} for key in self.keys]
        return {"keys": [key.jwk() for key in self.keys], "public_cert": certs[-1], "public_certs": certs}

    def certs_body(self) -> bytes:
        """Return the certs document as bytes, for `access.keys.seed()` or a server of your own."""
        return compact_json(self.certs())

    def user_token(self, email: str, *, key: SigningKey | None = None, **options: Unpack[UserOptions]) -> str:
        """Return the token of a logged-in user: list `aud`, `nbf`, no `typ` in the header.

        Args:
            email: The user's address, which determines `sub`.
            key: The key that signs; by default the current key.
            **options: `audience`, `groups`, `custom`, `country`, `expires_in`, `hostname`, `claims`.

        Raises:
            ConfigurationError: The team does not have the audience, or an option is unknown or not valid.
        """
        return self.sign(self.user_claims(email, **options), key=key)

    def service_token(self, name: str, *, key: SigningKey | None = None, **options: Unpack[ServiceOptions]) -> str:
        """Return the token of a service: text `aud`, no `nbf`, empty `sub`, and a `common_name`.

        Args:
            name: A Client ID, or any name, which determines the Client ID.
            key: The key that signs; by default the current key.
            **options: `audience`, `expires_in`, `hostname`, `claims`.

        Raises:
            ConfigurationError: The team does not have the audience, or an option is unknown or not valid.
        """
        signer = self.current if key is None else key
        header = {"kid": signer.kid, "alg": "RS256", "typ": "JWT"}
        return self.sign(self.service_claims(name, **options), header=header, key=signer)

    def org_token(self, email: str, *, expires_in: int = 86_400) -> str:
        """Return a user's global session token: same issuer and keys, `type` `org`, its own audience."""
        return self.sign(self._minter.org(email, expires_in=expires_in))

    def meta_token(self, *, audience: str | None = None, redirect_url: str = "/") -> str:
        """Return the `meta` parameter of a login redirect: the application's audience, no user."""
        claims = self._minter.meta(self._valid_audience(audience), redirect_url=redirect_url)
        return self.sign(claims, header=self._typed_header)

    def match_token(self, *, audience: str | None = None) -> str:
        """Return the public `cf-access-metadata` token: the application's audience, no user."""
        return self.sign(self._minter.match(self._valid_audience(audience)), header=self._typed_header)

    def sign(
        self,
        payload: Mapping[str, Any] | bytes,
        *,
        header: Mapping[str, Any] | bytes | None = None,
        key: SigningKey | None = None,
    ) -> str:
        """Sign any content: claims, or bytes that need not be JSON.

        Args:
            payload: The claims or the bytes.
            header: The JOSE header; by default that of a user token.
            key: The key that signs; by default the current key.

        Raises:
            ConfigurationError: The claims or the header cannot be encoded as JSON.
        """
        signer = self.current if key is None else key
        signed = f"{_segment({'alg': 'RS256', 'kid': signer.kid} if header is None else header)}.{_segment(payload)}"
        return f"{signed}.{base64url(signer.sign(signed.encode()))}"

    def user_claims(self, email: str, **options: Unpack[UserOptions]) -> dict[str, Any]:
        """Return the claims that `user_token` signs."""
        return self._minter.user(email, self._valid_audience(options.get("audience")), options)

    def service_claims(self, name: str, **options: Unpack[ServiceOptions]) -> dict[str, Any]:
        """Return the claims that `service_token` signs."""
        return self._minter.service(name, self._valid_audience(options.get("audience")), options)

    def user_id(self, email: str) -> str:
        """Return the `sub` of the user with this address."""
        return self._minter.user_id(email)

    def client_id(self, name: str) -> str:
        """Return the `common_name` of the service with this name."""
        return self._minter.client_id(name)

    @property
    def _minter(self) -> Minter:
        return Minter(self.issuer, self.name, int(self.clock.now()))

    @property
    def _typed_header(self) -> dict[str, str]:
        return {"typ": "JWT", "alg": "RS256", "kid": self.current.kid}

    def _add_key(self) -> SigningKey:
        key = self._new_key()
        self._issued[key.kid] = self.clock.now()
        return key

    def _certificate(self, key: SigningKey) -> str:
        if key.kid not in self._certificates:
            self._certificates[key.kid] = key.certificate(self._issued[key.kid])
        return self._certificates[key.kid]

    def _valid_audience(self, audience: str | None) -> str:
        if audience is None:
            return self.audience
        if audience not in self.audiences:
            tags = ", ".join(self.audiences)
            raise ConfigurationError(
                f"the team does not have this audience; it has {tags}; "
                "forge('wrong_audience') returns a token for another audience"
            )
        return audience


def _segment(content: Mapping[str, Any] | bytes) -> str:
    return base64url(content if isinstance(content, bytes) else compact_json(content))
