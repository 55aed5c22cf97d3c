// A service worker behind Cloudflare Access: it answers for files of the app alone.

const CACHE = "files-1";
const FILES = ["/app.js", "/session.js"];

self.addEventListener("install", () => self.skipWaiting());
self.addEventListener("activate", (event) => event.waitUntil(clients.claim()));

self.addEventListener("fetch", (event) => {
  const { origin, pathname } = new URL(event.request.url);
  if (origin !== location.origin || !FILES.includes(pathname)) return;
  event.respondWith(answer(event.request));
});

async function answer(request) {
  const cached = await caches.match(request);
  if (cached) return cached;
  const response = await fetch(request);
  if (response.ok && !response.redirected) { // the login page is neither
    const cache = await caches.open(CACHE);
    await cache.put(request, response.clone());
  }
  return response;
}
