"""The signing keys of a team: fetched, cached, refreshed and removed.

What happens to a token whose `kid` is unknown, in this order; each limit ends it with the error beside it.
`precheck` is in `_verification.token`, and the other functions are in `keys.KeySource`:

| limit | error | event reason | where |
|---|---|---|---|
| the unverified payload is longer than `MAX_UNVERIFIED_PAYLOAD` | `UnknownKey`, 401, unverified | | `precheck` |
| the unverified claims cannot pass | the error of that claim, unverified | | `precheck` |
| the `kid` is in the negative cache (`NEGATIVE_CACHE_TTLS`) | `UnknownKey`, 401 | | `_fetch_for` |
| the last fetch failed (`MAX_BACKOFF`) | `KeyUnconfirmed`, 503 | `back_off` | `_fetch_for` |
| the bucket is empty (`unknown_kid_burst`, `unknown_kid_interval`) | `KeyUnconfirmed`, 503 | `bucket` | `_fetch_for` |
| too many requests wait (`MAX_WAITERS`) | `KeyUnconfirmed`, 503 | `waiters` | `_fetch_for` |
| the fetch takes longer than `key_wait_timeout` | `KeyUnconfirmed`, 503 | | `get_or_fetch` |
| the fetch did not bring the `kid` | `UnknownKey`, 401 | | `_fetch_for`, called again |

Without usable keys, `precheck` still answers 401, but it is not called for a payload that is too long. Every later
error is then `KeysUnavailable`, 503. Neither the negative cache nor the bucket then applies, and a request during the
back-off emits no event of its own: `KeysRefreshFailed` was emitted.

With a snapshot store, a fetch reads the store first, and the keys of another worker can make it unnecessary:
`_keys.sharing`. The limits are the same.

An in-flight fetch is joined even during the back-off or with an empty bucket.
"""
