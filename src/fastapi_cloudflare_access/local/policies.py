"""Pure functions that evaluate the policies of an app."""

from fastapi_cloudflare_access.local.config import App, Person, Policy


def policy_for_person(app: App, person: Person) -> Policy | None:
    """Return the first `allow` or `deny` policy that includes this user, or None."""
    policies = (policy for policy in app.policies if policy.decision in ("allow", "deny"))
    return next((policy for policy in policies if _includes(policy, person)), None)


def admits_person(app: App, person: Person) -> bool:
    """Return whether the policy that decides about this user allows."""
    policy = policy_for_person(app, person)
    return policy is not None and policy.decision == "allow"


def policy_for_service(app: App, name: str) -> Policy | None:
    """Return the first `service_auth` policy that includes the service token of this name, or None."""
    policies = (policy for policy in app.policies if policy.decision == "service_auth")
    return next((policy for policy in policies if policy.everyone or name in policy.service_tokens), None)


def admits_service(app: App, name: str) -> bool:
    """Return whether a `service_auth` policy includes the service token of this name."""
    return policy_for_service(app, name) is not None


def bypass_policy(app: App) -> Policy | None:
    """Return the `bypass` policy that opens the app to every caller, or None."""
    return next((policy for policy in app.policies if policy.decision == "bypass"), None)


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
