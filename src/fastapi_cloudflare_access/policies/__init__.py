"""Policies: who may do what, as values that combine with `&`, `|` and `~`.

```
Email("ada@acme.example") | EmailDomain("acme.example") & ~Group("contractors")
```

A policy is evaluated by Kleene's three-valued logic: what a token does not say is unknown, and the negation of unknown
is unknown. Only a policy that is true admits a caller. A claim that cannot be read refuses the caller, negated or not.
"""

from fastapi_cloudflare_access.policies.callers import Claim, Country, Email, EmailDomain, Group, ServiceToken
from fastapi_cloudflare_access.policies.expressions import parse_policy
from fastapi_cloudflare_access.policies.logic import Anyone, Decision, Policy, Predicate
from fastapi_cloudflare_access.policies.roles import roles_from_environment, roles_from_file

__all__ = [
    "Anyone",
    "Claim",
    "Country",
    "Decision",
    "Email",
    "EmailDomain",
    "Group",
    "Policy",
    "Predicate",
    "ServiceToken",
    "parse_policy",
    "roles_from_environment",
    "roles_from_file",
]
