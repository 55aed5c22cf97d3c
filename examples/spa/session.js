// Requests of a single-page app behind Cloudflare Access.

const RELOADED = "access-reloaded";
let leaving = false;

export class SessionEnded extends Error {}

// Like fetch. If the session has ended, the page is loaded again, since only a
// navigation can log in.
export async function api(path, options = {}) {
  const headers = new Headers(options.headers);
  headers.set("X-Requested-With", "XMLHttpRequest"); // Access: 401, no redirect
  const response = await fetch(path, { ...options, headers, redirect: "manual" });
  if (response.status === 401 || response.type === "opaqueredirect") {
    if (dispatchEvent(new Event("session-ended", { cancelable: true }))) logIn();
    throw new SessionEnded();
  }
  sessionStorage.removeItem(RELOADED);
  return response;
}

// Load the page again, once: if that did not help, it would not help twice.
export function logIn() {
  if (leaving) return;
  if (sessionStorage.getItem(RELOADED)) {
    dispatchEvent(new Event("login-failed"));
    return;
  }
  sessionStorage.setItem(RELOADED, "yes");
  leaving = true;
  location.reload();
}

// For a button that the user presses after "login-failed".
export function logInAgain() {
  sessionStorage.removeItem(RELOADED);
  logIn();
}

// A script cannot see why an event stream or a WebSocket was refused, so ask.
export function watch(source, path) {
  const ask = () => api(path).catch(() => {});
  source.addEventListener("close", ask); // of a WebSocket
  source.addEventListener("error", () => {
    if (source.readyState === EventSource.CLOSED) ask();
  });
  return source;
}

// The page may come back from the login by the Back button.
addEventListener("pageshow", () => {
  leaving = false;
});
