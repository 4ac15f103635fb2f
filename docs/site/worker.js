// A page that is opened from disk may start no Worker. The search runs in a hidden frame then, by the same calls.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(script) {
      super();
      const frame = document.createElement("iframe");
      frame.hidden = true;
      frame.title = "search";
      document.documentElement.append(frame);
      const inside = frame.contentWindow;
      const home = new URL(script, document.baseURI);
      const load = (address) =>
        new Promise((done, failed) => {
          const element = inside.document.createElement("script");
          element.src = new URL(address, home).href;
          element.onload = done;
          element.onerror = failed;
          inside.document.body.append(element);
        });
      inside.importScripts = (...addresses) =>
        addresses.reduce((before, address) => before.then(() => load(address)), Promise.resolve());
      inside.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }));
      this.inside = inside;
      this.ready = load(home);
    }

    postMessage(data) {
      this.ready.then(() => this.inside.dispatchEvent(new MessageEvent("message", { data })));
    }
  };
}
