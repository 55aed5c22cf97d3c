"""Pure functions that evaluate the policies of an app."""

from fastapi_cloudflare_access.local.config import App, Person, Policy


def admits_person(app: App, person: Person) -> bool:
    """Return whether the first `allow` or `deny` policy that includes this user allows."""
    for policy in app.policies:
        if policy.decision in ("allow", "deny") and _includes(policy, person):
            return policy.decision == "allow"
    return False


def admits_service(app: App, name: str) -> bool:
    """Return whether a `service_auth` policy includes the service token of this name."""
    policies = (policy for policy in app.policies if policy.decision == "service_auth")
    return any(policy.everyone or name in policy.service_tokens for policy in policies)


def is_bypassed(app: App) -> bool:
    """Return whether a `bypass` policy opens the app to every caller."""
    return any(policy.decision == "bypass" for policy in app.policies)


def has_login(app: App) -> bool:
    """Return whether any user can log in to the app."""
    return any(policy.decision == "allow" for policy in app.policies)


def _includes(policy: Policy, person: Person) -> bool:
    return (
        policy.everyone
        or person.email in policy.emails
        or person.email.partition("@")[2] in policy.domains
        or not set(policy.groups).isdisjoint(person.groups)
    )
