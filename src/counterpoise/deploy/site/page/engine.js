// The page's end of the worker: a question at a time, each with a limit after which the worker is started anew.

const LIMITS = { open: 180_000, picture: 60_000, measure: 60_000 };

export class Engine {
  #worker = null;
  #waiting = new Map();
  #next = 0;

  /** @param {object} site what site.json says. */
  constructor(site) {
    this.site = site;
  }

  /** Start the worker on "cpu" or "gpu". Resolves with {threads, times}. */
  open(processor) {
    this.processor = processor;
    this.#worker?.terminate();
    this.#fail("It was started anew.");
    this.#worker = new Worker("worker.js", { type: "module" });
    this.#worker.onmessage = ({ data: { id, result, error, unexpected, progress } }) => {
      const asked = this.#waiting.get(id);
      if (!asked) return;
      if (progress !== undefined) {
        clearTimeout(asked.timer); // what goes on is not stopped
        asked.timer = setTimeout(() => this.#tooSlow(asked.kind), LIMITS[asked.kind]);
        asked.progress?.(progress);
        return;
      }
      this.#waiting.delete(id);
      clearTimeout(asked.timer);
      if (error === undefined) asked.resolve(result);
      else asked.reject(Object.assign(new Error(error), { unexpected }));
    };
    this.#worker.onerror = (event) => {
      event.preventDefault();
      this.#fail(event.message || "The worker could not be started.");
    };
    return this.#ask("open", { site: this.site, processor });
  }

  /** Every export's answer to a file or a bitmap, which is given away; `progress` is told which share is done. */
  picture(given, progress) {
    return this.#ask("picture", given, given.bitmap ? [given.bitmap] : [], progress);
  }

  /** Median milliseconds of every export. */
  measure(budget = 1500) {
    return this.#ask("measure", { budget });
  }

  #ask(kind, rest, transfer = [], progress = null) {
    const id = this.#next++;
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => this.#tooSlow(kind), LIMITS[kind]);
      this.#waiting.set(id, { kind, resolve, reject, timer, progress });
      this.#worker.postMessage({ id, kind, ...rest }, transfer);
    });
  }

  #tooSlow(kind) {
    const seconds = LIMITS[kind] / 1000;
    this.#worker.terminate();
    this.#fail(`This took more than ${seconds} seconds and was stopped.`);
    if (kind !== "open") this.open(this.processor).catch(() => {});
  }

  #fail(reason) {
    for (const { reject, timer } of this.#waiting.values()) {
      clearTimeout(timer);
      reject(new Error(reason));
    }
    this.#waiting.clear();
  }
}
