// End-to-end test of the quickstart app with Playwright for JavaScript.
// Run it in this folder: npm install playwright && node end_to_end.mjs
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as wait } from "node:timers/promises";
import { chromium } from "playwright";

const folder = await mkdtemp(join(tmpdir(), "access-"));
const readyFile = join(folder, "ready.json");
const options = ["--port", "0", "--state", folder, "--ready-file", readyFile];
const command = process.env.CF_ACCESS_COMMAND ?? "cf-access";
const access = spawn(
  command,
  ["dev", "quickstart_app:app", ...options, "--no-access-log"],
  { stdio: ["ignore", "ignore", "inherit"] },
);

try {
  while (!existsSync(readyFile)) {
    assert.equal(access.exitCode, null, "cf-access dev has ended");
    await wait(50);
  }
  const { apps, control } = JSON.parse(readFileSync(readyFile, "utf8"));
  const me = new URL("/me", apps[0].url).href;
  const browser = await chromium.launch({
    executablePath: process.env.CHROMIUM || undefined,
    args: ["--no-sandbox"],
  });

  // Log in once, and keep the cookies.
  const first = await browser.newContext();
  const login = await first.newPage();
  await login.goto(me);
  await login.getByRole("button", { name: "Ada Lovelace" }).click();
  await login.waitForURL(me);
  const storageState = await first.storageState();

  // Each test begins with them.
  const context = await browser.newContext({ storageState });
  const page = await context.newPage();
  await page.goto(me);
  assert.match(await page.innerText("body"), /ada@example.com/);

  // The JSON API makes trouble, here a user without a session.
  await fetch(control + "revoke", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ email: "ada@example.com" }),
  });
  await page.goto(me);
  assert.match(await page.title(), /Log in/);
  await browser.close();
  console.log("passed");
} finally {
  access.kill("SIGINT");
}
