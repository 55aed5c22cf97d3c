"""Take the pictures of the local Access that the docs show; needs Debian's chromium and playwright."""

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from playwright.sync_api import Page, sync_playwright

from fastapi_cloudflare_access.local import App, Config, Policy, RunningAccess, run_local_access

ASSETS = Path(__file__).parents[1] / "docs" / "assets"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
SHOP = App(name="Shop", host="shop.localhost", policies=(Policy(name="Admins", groups=("admins",)),))


def take(page: Page, local: RunningAccess, suffix: str) -> None:
    """Go through the pages, one picture each."""

    def picture(name: str) -> None:
        page.screenshot(path=ASSETS / f"local-{name}{suffix}.png", full_page=True)

    page.goto(local.url("/", app="Shop"))
    picture("login")
    page.get_by_role("button", name="Grace").click()
    page.get_by_role("heading", name="does not have access").wait_for()
    picture("no-access")
    page.get_by_role("link").click()
    page.get_by_role("button", name="Ada").click()
    page.wait_for_url(local.url("/", app="Shop"))
    page.goto(local.team_domain)
    page.locator("summary").first.click()
    picture("control")
    page.goto(local.url("/cdn-cgi/access/logout"))
    picture("logged-out")


def main() -> None:
    """Take every picture in light and in dark, and the login at 200 %."""
    config = Config(apps=(App(name="Wiki"), SHOP))
    with (
        run_local_access(config=config, port=8787) as local,
        TemporaryDirectory() as profile,
        sync_playwright() as tool,
    ):
        for scheme, suffix in (("light", ""), ("dark", "-dark")):
            local.control("reset")
            context = tool.chromium.launch_persistent_context(
                f"{profile}/{scheme}",
                executable_path=shutil.which("chromium"),
                args=FLAGS,
                color_scheme=scheme,  # type: ignore[arg-type]
                viewport={"width": 900, "height": 600},
            )
            take(context.new_page(), local, suffix)
            context.close()


if __name__ == "__main__":
    main()
