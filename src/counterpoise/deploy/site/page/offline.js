// Keeping the page for later, without a network.

/** Install the service worker and tell in `place` when the page is ready to be opened offline. */
export async function followServiceWorker(place) {
  if (!("serviceWorker" in navigator)) {
    place.textContent = window.isSecureContext ? "not in this browser" : "needs HTTPS or localhost";
    return;
  }
  try {
    const registration = await navigator.serviceWorker.register("service-worker.js");
    registration.addEventListener("updatefound", () => {
      const next = registration.installing;
      next.addEventListener("statechange", () => {
        if (next.state === "installed" && navigator.serviceWorker.controller) offerUpdate(place, next);
      });
    });
    if (registration.waiting && navigator.serviceWorker.controller) offerUpdate(place, registration.waiting);
    await navigator.serviceWorker.ready;
    if (!place.querySelector("button")) {
      place.textContent = "ready";
      place.dataset.ready = "true";
    }
  } catch {
    place.textContent = "this site could not be kept";
  }
}

function offerUpdate(place, worker) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "link";
  button.textContent = "A newer student is here: load it";
  button.addEventListener("click", () => {
    navigator.serviceWorker.addEventListener("controllerchange", () => location.reload());
    worker.postMessage("take over");
  });
  place.replaceChildren(button);
}
