"""Asking get-identity for a user: limited, shared by the requests of a token, and kept for a short time.

| limit | error | reason |
|---|---|---|
| `MAX_IN_FLIGHT` fetches at once | `IdentityUnavailable` | many new tokens must not exhaust sockets |
| `USER_BURST` for each user, then one each `USER_INTERVAL` | 〃 | one user must not use up what all share |
| failed fetches of `FAILURES` users in a row, then a pause | 〃 | an outage must not cost every request its timeout |
| `fetch_timeout` for one fetch | 〃 | a request has to end |
| `MAX_IDENTITY` bytes | 〃 | the document is read into memory |
"""
