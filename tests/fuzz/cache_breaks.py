"""Ways to break the cache, each of which the tests of it must notice."""

from collections.abc import Callable
from hashlib import sha256
from typing import Any

import pytest
from fuzz.cache_pair import Rig

from fastapi_cloudflare_access import _verifier
from fastapi_cloudflare_access._verification.token_cache import TokenCache
from fastapi_cloudflare_access._verifier import Verifier

Break = Callable[[pytest.MonkeyPatch], None]


def changed_entries(**changes: Any) -> Break:
    """Keep entries with other values than they should have."""
    put = TokenCache.put

    def apply(patch: pytest.MonkeyPatch) -> None:
        patch.setattr(TokenCache, "put", lambda cache, digest, entry: put(cache, digest, entry._replace(**changes)))

    return apply


def hash_without_signature(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(_verifier, "sha256", lambda token: sha256(token.rpartition(b".")[0]))


def same_hash(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(_verifier, "sha256", lambda token: sha256(b""))


def same_instance(patch: pytest.MonkeyPatch) -> None:
    """Give the instance that the first request got, whatever its model."""
    remember = Verifier._remember

    def remembered(self: Any, parsed: Any, key: Any, claims: Any, caller: Any, revocation_keys: Any) -> Any:
        return remember(self, parsed, key, claims, caller, revocation_keys)._replace(caller=caller)

    patch.setattr(Verifier, "_remember", remembered)


def keys_are_kept(patch: pytest.MonkeyPatch) -> None:
    """Go on with the first key of each `kid`, withdrawn or replaced, in verifiers with a cache."""
    init = Verifier.__init__

    def stubborn(self: Any, *args: Any, **options: Any) -> None:
        init(self, *args, **options)
        if self._cache is not None:
            self.keys = FirstKeys(self.keys)

    patch.setattr(Verifier, "__init__", stubborn)


class FirstKeys:
    """A key source that goes on with the first key of each `kid`."""

    def __init__(self, keys: Any) -> None:
        self._keys, self._first = keys, dict[str, Any]()

    def get_if_usable(self, kid: str) -> Any:
        key = self._keys.get_if_usable(kid)
        return self._first.setdefault(kid, key) if key else self._first.get(kid)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._keys, name)


def one_cache_for_two_audiences(patch: pytest.MonkeyPatch) -> None:
    init = Rig.__init__

    def joined(self: Rig, **options: Any) -> None:
        init(self, **options)
        self.copy._authenticator.verifier._cache = self.verifier._cache

    patch.setattr(Rig, "__init__", joined)
