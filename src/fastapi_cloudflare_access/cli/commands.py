"""The commands and their options, for typer."""

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from fastapi_cloudflare_access._revocations.source import RevocationSource
from fastapi_cloudflare_access.cli.certs import fetch_certs_or_fail, read_certs, read_pem
from fastapi_cloudflare_access.cli.configuration import Configuration, configure
from fastapi_cloudflare_access.cli.doctor import Doctor, show_step
from fastapi_cloudflare_access.cli.edge_cache import check_page
from fastapi_cloudflare_access.cli.formatting import printable
from fastapi_cloudflare_access.cli.inspection import inspect_given
from fastapi_cloudflare_access.cli.inspection import show as show_inspection
from fastapi_cloudflare_access.cli.keys import Watch
from fastapi_cloudflare_access.cli.keys import show as show_keys
from fastapi_cloudflare_access.cli.keys import watch as watch_keys
from fastapi_cloudflare_access.cli.output import Screen
from fastapi_cloudflare_access.cli.reports import CommandError, DoctorReport, ExitCode, Step, Verdict
from fastapi_cloudflare_access.cli.tokens import VARIABLE, optional_token, read_token
from fastapi_cloudflare_access.cli.verify import Certs, kid_of, verify_given
from fastapi_cloudflare_access.cli.verify import show as show_verification
from fastapi_cloudflare_access.protocols import Clock, Fetch

Token = Annotated[
    str | None,
    typer.Argument(
        metavar="TOKEN|-", help=f"Token, or - for standard input (default: ${VARIABLE}).", show_default=False
    ),
]
Team = Annotated[str | None, typer.Option(help="Team (default: $CF_ACCESS_TEAM_DOMAIN).", show_default=False)]
Audience = Annotated[
    str | None,
    typer.Option(help="AUD tags, separated by commas (default: $CF_ACCESS_AUDIENCE).", show_default=False),
]
Page = Annotated[
    str | None,
    typer.Option("--page", metavar="URL", help="Public URL to ask for twice: is it cached?", show_default=False),
]
AsJson = Annotated[bool, typer.Option("--json", help="Write JSON.")]
CertsFile = Annotated[
    Path | None,
    typer.Option("--certs", metavar="FILE", help="Saved certs document, instead of a fetch.", show_default=False),
]
PemFile = Annotated[
    Path | None,
    typer.Option("--cert", metavar="PEM", help="Certificate in PEM format, instead of a fetch.", show_default=False),
]
AppName = Annotated[str, typer.Argument(metavar="MODULE:APP", help="App, as for uvicorn.", show_default=False)]
Listed = Annotated[
    list[str] | None,
    typer.Option("--open", metavar="PATH", help="Path that may be open; repeatable.", show_default=False),
]
Store = Annotated[
    str | None,
    typer.Option(metavar="URL", help="Store (default: $CF_ACCESS_REVOCATION_STORE).", show_default=False),
]
SecretFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="Secret of the store (default: $CF_ACCESS_REVOCATION_SECRET).", show_default=False
    ),
]
Prefix = Annotated[str, typer.Option(metavar="TEXT", help="Prefix of the store.")]
AccessName = Annotated[
    list[str] | None,
    typer.Option(
        "--access",
        metavar="MODULE:NAME",
        help="Object that counts (default: all that the app uses); repeatable.",
        show_default=False,
    ),
]


@dataclass(frozen=True, slots=True)
class Commands:
    """The commands of `cf-access`, with one clock and one fetch function.

    Attributes:
        clock: The source of time.
        fetch: The function that fetches the certs document; None means httpx.
    """

    clock: Clock
    fetch: Fetch | None

    def doctor(
        self,
        token: Token = None,
        team: Team = None,
        audience: Audience = None,
        page: Page = None,
        *,
        as_json: AsJson = False,
    ) -> int:
        """Check settings, network, keys and clock, and a token and a page if given."""
        if page is not None:
            check_page(page)
        given = optional_token(token)
        doctor = Doctor(configure(team, audience), given, self.clock, self.fetch, page=page)
        screen = Screen(as_json=as_json)
        steps = asyncio.run(_run_checks(doctor, screen))
        ok = all(step.status != "failed" for step in steps)
        if as_json:
            screen.report(DoctorReport(ok=ok, steps=steps, keys=doctor.keys))
        return ExitCode.SUCCESS if ok else ExitCode.FAILURE

    def inspect(
        self, token: Token = None, team: Team = None, audience: Audience = None, *, as_json: AsJson = False
    ) -> int:
        """Decode a token without verifying it."""
        configuration, now = configure(team, audience), self.clock.now()
        report = inspect_given(read_token(token), configuration, now)
        screen = Screen(as_json=as_json)
        if as_json:
            screen.report(report)
        else:
            show_inspection(report, screen, settings=configuration.settings, now=now)
        return ExitCode.FAILURE if report.claims is None else ExitCode.SUCCESS

    def verify(
        self,
        token: Token = None,
        certs: CertsFile = None,
        cert: PemFile = None,
        team: Team = None,
        audience: Audience = None,
        *,
        as_json: AsJson = False,
    ) -> int:
        """Verify a token step by step, as the app does."""
        given, configuration = read_token(token), configure(team, audience)
        used = self._certs(given.value, certs, cert, configuration)
        report = asyncio.run(verify_given(given, used, configuration, self.clock))
        screen = Screen(as_json=as_json)
        if as_json:
            screen.report(report)
        else:
            show_verification(report, screen)
        return _exit_code(report.verdict)

    def keys(
        self,
        team: Team = None,
        certs: CertsFile = None,
        *,
        watch: Annotated[bool, typer.Option("--watch", help="Keep reading the keys, and show changes.")] = False,
        interval: Annotated[float, typer.Option(min=1, max=86_400, help="Seconds between two checks.")] = 10,
        times: Annotated[int | None, typer.Option(min=1, help="Number of checks.", show_default=False)] = None,
        as_json: AsJson = False,
    ) -> int:
        """Show the keys that the team publishes."""
        screen = Screen(as_json=as_json)
        key_watch = self._key_watch(configure(team, None), certs, screen, interval)
        if watch:
            watch_keys(key_watch, times)
            return ExitCode.SUCCESS
        report = asyncio.run(key_watch.read_once())
        if as_json:
            screen.report(report)
        else:
            show_keys(report, screen, self.clock.now())
        return ExitCode.SUCCESS if any(key.usable for key in report.keys) else ExitCode.INCONCLUSIVE

    def routes(self, app: AppName, listed: Listed = None, access: AccessName = None, *, as_json: AsJson = False) -> int:
        """Show the callers that each route of an app admits."""
        from fastapi_cloudflare_access.cli import routes  # noqa: PLC0415 - it loads the testing kit

        report = routes.report_on(app, listed or [], access or [])
        screen = Screen(as_json=as_json)
        if as_json:
            screen.report(report)
        else:
            routes.show(report, screen)
        return ExitCode.SUCCESS if report.ok else ExitCode.FAILURE

    def revoke(  # noqa: PLR0913 - its options
        self,
        token: Annotated[
            str | None,
            typer.Argument(metavar="TOKEN|-", help="One token, or - for standard input.", show_default=False),
        ] = None,
        sub: Annotated[str | None, typer.Option(help="User, by the claim `sub`.", show_default=False)] = None,
        email: Annotated[str | None, typer.Option(help="User, by address.", show_default=False)] = None,
        client_id: Annotated[str | None, typer.Option(help="Service.", show_default=False)] = None,
        for_: Annotated[
            str | None, typer.Option("--for", metavar="DURATION", help="Block for 2h or 7d.", show_default=False)
        ] = None,
        *,
        unblock: Annotated[bool, typer.Option("--unblock", help="End the blocks of the caller.")] = False,
        team: Team = None,
        store: Store = None,
        secret_file: SecretFile = None,
        prefix: Prefix = "cf-access:",
        as_json: AsJson = False,
    ) -> int:
        """Log a caller out of the apps of a fleet, block a caller, or revoke a token."""
        from fastapi_cloudflare_access.cli import revoking  # noqa: PLC0415 - for the stores

        target = revoking.Target(sub, email, client_id, None if token is None else read_token(token).value)
        duration = None if for_ is None else revoking.duration_of(for_)
        source = self._revocations(team, store, secret_file, prefix)
        report = asyncio.run(revoking.revoke(source, target, for_=duration, unblock=unblock))
        screen = Screen(as_json=as_json)
        if as_json:
            screen.report(report)
        else:
            revoking.show_revoked(report, screen, has_workers=source.report.has_read_own or source.age is None)
        return ExitCode.SUCCESS

    def revocations(
        self,
        team: Team = None,
        store: Store = None,
        secret_file: SecretFile = None,
        prefix: Prefix = "cf-access:",
        *,
        as_json: AsJson = False,
    ) -> int:
        """Show the revocations in force."""
        from fastapi_cloudflare_access.cli import revoking  # noqa: PLC0415 - for the stores

        report = asyncio.run(revoking.read(self._revocations(team, store, secret_file, prefix)))
        screen = Screen(as_json=as_json)
        if as_json:
            screen.report(report)
        else:
            revoking.show(report, screen, self.clock.now())
        return ExitCode.SUCCESS

    def _revocations(
        self, team: str | None, store: str | None, secret_file: Path | None, prefix: str
    ) -> RevocationSource:
        from fastapi_cloudflare_access.cli import revoking  # noqa: PLC0415 - for the stores

        settings = configure(team, None).require_team()
        return revoking.source_of(revoking.make_store(store, secret_file, prefix), settings, self.clock)

    def _key_watch(self, configuration: Configuration, certs: Path | None, screen: Screen, interval: float) -> Watch:
        if certs is not None:

            async def read() -> bytes:
                return read_certs(certs)

            return Watch(read, printable(str(certs)), screen, self.clock, interval)
        settings = configuration.require_team()

        async def fetch() -> bytes:
            return await fetch_certs_or_fail(settings, clock=self.clock, fetch=self.fetch)

        return Watch(fetch, settings.certs_url, screen, self.clock, interval)

    def _certs(self, token: bytes, certs: Path | None, cert: Path | None, configuration: Configuration) -> Certs:
        if certs is not None and cert is not None:
            raise CommandError("There are two sources of keys: pass --certs or --cert, not both.")
        if certs is not None:
            return Certs(read_certs(certs), printable(str(certs)), "file")
        if cert is not None:
            return Certs(read_pem(cert, kid_of(token)), printable(str(cert)), "certificate")
        settings = configuration.require_team()
        document = asyncio.run(fetch_certs_or_fail(settings, clock=self.clock, fetch=self.fetch))
        return Certs(document, settings.certs_url)


async def _run_checks(doctor: Doctor, screen: Screen) -> list[Step]:
    steps: list[Step] = []
    with screen.busy("checking…"):
        async for step in doctor.run_checks():
            steps.append(step)
            if not screen.as_json:
                show_step(step, doctor.keys, screen)
    return steps


def _exit_code(verdict: Verdict) -> ExitCode:
    if verdict.accepted is None:
        return ExitCode.INCONCLUSIVE
    return ExitCode.SUCCESS if verdict.accepted else ExitCode.FAILURE
