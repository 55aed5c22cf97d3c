"""The signing keys of a team: fetched, cached, refreshed and removed.

What happens to a token whose `kid` is unknown, in this order; each limit ends it with the error beside it:

| limit | error | event reason |
|---|---|---|
| the unverified claims cannot pass (`_verification.token.precheck`) | the error of that claim | |
| the `kid` is in the negative cache (`NEGATIVE_CACHE_TTLS`) | `UnknownKey`, 401 | |
| the last fetch failed (`MAX_BACKOFF`) | `KeyUnconfirmed`, 503 | `back_off` |
| the token bucket is empty (`unknown_kid_burst`, `unknown_kid_interval`) | `KeyUnconfirmed`, 503 | `bucket` |
| too many requests wait (`MAX_WAITERS`) | `KeyUnconfirmed`, 503 | `waiters` |
| the fetch takes longer than `key_wait_timeout` | `KeyUnconfirmed`, 503 | |
| the fetch did not bring the `kid` | `UnknownKey`, 401 | |

Without usable keys every error is `KeysUnavailable`, 503. An in-flight fetch is joined, whatever the bucket holds.
"""
