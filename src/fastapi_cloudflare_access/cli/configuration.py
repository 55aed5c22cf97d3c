"""The settings as the command line takes them: options first, then the environment."""

from dataclasses import dataclass

from fastapi_cloudflare_access.cli.reports import CommandError
from fastapi_cloudflare_access.errors import ConfigurationError
from fastapi_cloudflare_access.settings import Settings


@dataclass(frozen=True, slots=True)
class Configuration:
    """The settings, as far as they are there.

    Attributes:
        settings: All of them, or None.
        team: Those that say where the keys are, or None; their audience may be nobody's.
        problem: What is missing or wrong.
        team_problem: What is missing or wrong with those that say where the keys are.
    """

    settings: Settings | None
    team: Settings | None
    problem: str | None = None
    team_problem: str | None = None

    def require_team(self) -> Settings:
        """Give the settings that say where the keys are.

        Raises:
            CommandError: They are missing or wrong.
        """
        if self.team is None:
            raise CommandError(f"The settings will not do: {self.team_problem}.")
        return self.team


def configure(team: str | None, audience: str | None) -> Configuration:
    """Load the settings; what is not given comes from the environment."""
    options: dict[str, str] = {}
    if team is not None:
        options["team_domain"] = team
    if audience is not None:
        options["audience"] = audience
    try:
        settings = Settings.load(**options)
    except ConfigurationError as error:
        return _team_alone(options, _in_words_of_the_command_line(str(error)))
    return Configuration(settings, settings)


def _team_alone(options: dict[str, str], problem: str) -> Configuration:
    """Take what says where the keys are, though no token can be judged: the audience is nobody's."""
    options["audience"] = "none"
    try:
        return Configuration(None, Settings.load(**options), problem)
    except ConfigurationError as error:
        return Configuration(None, None, problem, _in_words_of_the_command_line(str(error)))


def _in_words_of_the_command_line(problem: str) -> str:
    return problem.replace("pass team_domain=…", "pass --team").replace("pass audience=…", "pass --audience")
