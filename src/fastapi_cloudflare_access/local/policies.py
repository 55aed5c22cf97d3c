"""Whom an app's policies let in; pure."""

from fastapi_cloudflare_access.local.config import App, Person, Policy


def admits_person(app: App, person: Person) -> bool:
    """Tell what the first `allow` or `deny` policy that includes this person says."""
    for policy in app.policies:
        if policy.decision in ("allow", "deny") and _includes(policy, person):
            return policy.decision == "allow"
    return False


def admits_service(app: App, name: str) -> bool:
    """Tell whether a `service_auth` policy includes the service token of this name."""
    policies = (policy for policy in app.policies if policy.decision == "service_auth")
    return any(policy.everyone or name in policy.service_tokens for policy in policies)


def is_bypassed(app: App) -> bool:
    """Tell whether the app is open to anybody."""
    return any(policy.decision == "bypass" for policy in app.policies)


def has_login(app: App) -> bool:
    """Tell whether people can log in to the app at all."""
    return any(policy.decision == "allow" for policy in app.policies)


def _includes(policy: Policy, person: Person) -> bool:
    return (
        policy.everyone
        or person.email in policy.emails
        or person.email.partition("@")[2] in policy.domains
        or not set(policy.groups).isdisjoint(person.groups)
    )
