// Keeps the site for use without a network: its files are fetched once, whole, and served from then on from this device.
// VERSION (a hash of all files), FILES and LATER (files that only some devices need) stand above.

const CACHE = `counterpoise ${self.registration.scope} ${VERSION}`;

// With these two, pages may share memory between threads; not every static host lets one set them.
const ISOLATED = { "Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp" };

self.addEventListener("install", (event) => event.waitUntil(keep()));
self.addEventListener("activate", (event) => event.waitUntil(forget()));
self.addEventListener("message", ({ data }) => data === "take over" && self.skipWaiting());
self.addEventListener("fetch", (event) => {
  const { request } = event;
  const url = new URL(request.url);
  if (request.method === "GET" && url.href.startsWith(self.registration.scope)) event.respondWith(answer(request, url));
});

async function keep() {
  const cache = await caches.open(CACHE);
  await cache.addAll(FILES);
}

async function forget() {
  const ours = (name) => name.startsWith(`counterpoise ${self.registration.scope} `) && name !== CACHE;
  await Promise.all((await caches.keys()).filter(ours).map((name) => caches.delete(name)));
  await self.clients.claim();
}

async function answer(request, url) {
  const cache = await caches.open(CACHE);
  const name = url.href.slice(self.registration.scope.length).split(/[?#]/)[0] || "index.html";
  let found = await cache.match(name);
  if (!found) {
    found = await fetch(request);
    if (found.ok && LATER.includes(name)) await cache.put(name, found.clone());
  }
  const headers = new Headers(found.headers);
  for (const [key, value] of Object.entries(ISOLATED)) headers.set(key, value);
  const { status, statusText } = found;
  return new Response(found.body, { status, statusText, headers });
}
