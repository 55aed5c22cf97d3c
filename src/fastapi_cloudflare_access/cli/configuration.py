"""Settings for the command line: options first, then the environment."""

from dataclasses import dataclass

from fastapi_cloudflare_access.cli.reports import CommandError
from fastapi_cloudflare_access.errors import ConfigurationError
from fastapi_cloudflare_access.settings import Settings


@dataclass(frozen=True, slots=True)
class Configuration:
    """The settings that could be loaded.

    Attributes:
        settings: All settings, or None if one is missing or not valid.
        team: The settings needed to fetch keys, or None; the audience may be a placeholder.
        problem: The reason why `settings` is None.
        team_problem: The reason why `team` is None.
    """

    settings: Settings | None
    team: Settings | None
    problem: str | None = None
    team_problem: str | None = None

    def require_team(self) -> Settings:
        """Return the settings needed to fetch keys.

        Raises:
            CommandError: They are missing or not valid.
        """
        if self.team is None:
            raise CommandError(f"The settings are not valid: {self.team_problem}.")
        return self.team


def configure(team: str | None, audience: str | None) -> Configuration:
    """Load the settings; options that are not given come from the environment."""
    options: dict[str, str] = {}
    if team is not None:
        options["team_domain"] = team
    if audience is not None:
        options["audience"] = audience
    try:
        settings = Settings.load(**options)
    except ConfigurationError as error:
        return _team_only(options, _with_option_names(str(error)))
    return Configuration(settings, settings)


def _team_only(options: dict[str, str], problem: str) -> Configuration:
    """Load the settings needed to fetch keys, with a placeholder as the audience."""
    options["audience"] = "none"
    try:
        return Configuration(None, Settings.load(**options), problem)
    except ConfigurationError as error:
        return Configuration(None, None, problem, _with_option_names(str(error)))


def _with_option_names(problem: str) -> str:
    return problem.replace("pass team_domain=…", "pass --team").replace("pass audience=…", "pass --audience")
