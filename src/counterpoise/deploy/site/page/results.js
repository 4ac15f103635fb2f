// What the student says, for people: ranked classes or painted masks, one column an export, and how far they agree.

import { UNSURE } from "./scenes.js";

const RANKS = 5;
const at = (id) => document.getElementById(id);

export class Results {
  any = false; // whether a picture or a frame of video has been shown
  #hidden = new Set(); // classes that are not painted
  #seen = { pictures: 0, same: 0, difference: 0 };

  constructor(site) {
    this.site = site;
    this.columns = site.models.map((model) => this.#column(model));
    at("columns").replaceChildren(...this.columns.map(({ box }) => box));
    if (site.dense) {
      if (!site.sigmoid && site.classes.indexOf("background") >= 0) this.#hidden.add(site.classes.indexOf("background"));
      at("opacity").addEventListener("input", () => this.#fade());
      this.#fade();
    }
  }

  /** Median milliseconds a picture of every export. */
  times(milliseconds) {
    for (const [index, { time }] of this.columns.entries()) {
      time.textContent = `${readable(milliseconds[index])}${this.site.input.sliding ? " a window" : ""}`;
    }
    document.body.dataset.times = milliseconds.join(" "); // for whoever measures browsers
  }

  show(result, live) {
    this.any = true;
    draw(at("shown"), result.shown);
    if (this.site.dense) this.#paint(result, live);
    else this.#rank(result.answers, live);
    if (!live) this.#count(result.answers);
    document.body.dataset.answered = String(Number(document.body.dataset.answered ?? 0) + 1);
  }

  #column({ name, title, bytes }) {
    const box = element("div", `column ${name === "int8" ? "int" : "float"}`);
    const time = element("b", "", "…");
    const cost = element("p", "cost");
    const size = element("span", "", weight(bytes));
    const what = this.site.input.sliding ? "window" : "picture";
    time.title = `median time a ${what} on this device, the network alone`;
    size.title = "download size of the network";
    cost.append(time, size);
    const head = element("div", "column-head");
    head.append(element("h2", "", title), cost);
    const body = element("div", "");
    box.append(head, body);
    const column = { box, time, body };
    if (this.site.dense) {
      const panel = element("div", "panel");
      column.image = element("canvas", "");
      column.mask = element("canvas", "");
      column.image.setAttribute("aria-hidden", "true");
      column.mask.setAttribute("role", "img");
      column.mask.setAttribute("aria-label", `${title}: no picture yet`);
      panel.append(column.image, column.mask);
      body.append(panel);
    } else {
      column.doubt = element("p", "doubt");
      column.doubt.hidden = true;
      body.append(column.doubt);
      const list = element("ol", "ranks placeholder");
      for (let rank = 0; rank < Math.min(RANKS, this.site.classes.length); rank++) list.append(this.#row("–", null));
      column.list = list;
      body.append(list);
    }
    return column;
  }

  #row(name, share) {
    const row = element("li", "rank");
    const label = element("span", "name clip", name);
    label.dir = "auto";
    if (name.length > 40) label.title = name;
    const bar = element("span", "bar");
    const filled = element("i", "");
    filled.style.width = "100%";
    filled.style.transform = `scaleX(${share ?? 0})`;
    bar.setAttribute("aria-hidden", "true");
    bar.append(filled);
    row.append(label, element("span", "share", share === null ? "" : percent(share)), bar);
    return row;
  }

  #rank(answers, live) {
    for (const [index, { probabilities, unsure }] of answers.entries()) {
      const { list, doubt } = this.columns[index];
      doubt.hidden = !unsure;
      doubt.textContent = unsure ? this.#unsure(unsure) : "";
      list.className = "ranks";
      list.replaceChildren(...this.#told(probabilities).map((at) => {
        const row = this.#row(this.site.classes[at], probabilities[at]);
        if (this.site.sigmoid) row.classList.add(this.#there(probabilities, at) ? "there" : "absent");
        return row;
      }));
    }
    const { probabilities, unsure } = answers[0];
    const [top] = best(probabilities);
    const named = this.site.sigmoid ? this.#told(probabilities).filter((at) => this.#there(probabilities, at)) : [top];
    const said = named.map((at) => `${this.site.classes[at].slice(0, 100)}, ${percent(probabilities[at])}`).join("; ");
    if (!live) at("announcement").textContent = unsure ? this.#unsure(unsure) : `Answer: ${said || "none of the labels"}`;
  }

  /** What is said of a picture that the student has promised not to answer. */
  #unsure(classes) {
    const named = classes.slice(0, RANKS).map((at) => this.site.classes[at].slice(0, 100)).join(", ");
    return `Not sure: ${named}${classes.length > RANKS ? ` or ${classes.length - RANKS} more` : ""}?`;
  }

  /** Whether a label is answered, where each is a question of its own. */
  #there(probabilities, at) {
    return probabilities[at] >= (this.site.thresholds?.[at] ?? 0.5);
  }

  /** The indices of what is shown: of labels first those that are there, all of them, then the likeliest others. */
  #told(probabilities) {
    if (!this.site.sigmoid) return best(probabilities);
    const order = ranked(probabilities);
    const there = order.filter((at) => this.#there(probabilities, at));
    return [...there, ...order.filter((at) => !this.#there(probabilities, at))].slice(0, Math.max(RANKS, there.length));
  }

  #paint({ shown, answers }, live) {
    at("controls").hidden = false;
    for (const [index, answer] of answers.entries()) {
      const { image, mask } = this.columns[index];
      draw(image, shown);
      const [largest] = this.#shares(answer);
      const mostly = largest ? `mostly ${this.site.classes[largest.at].slice(0, 100)}` : "none of the classes";
      const text = `${this.site.models[index].title}: ${mostly}`;
      mask.setAttribute("aria-label", text);
      if (index === 0 && !live) at("announcement").textContent = text;
    }
    this.#color(answers);
    this.#legend(answers);
    document.body.dataset.note = answers[0].exact ? "" : this.#resized(answers[0].seen);
  }

  /** What is different here from `counterpoise predict`, which shows pictures at their own size. */
  #resized([rows, columns]) {
    const { any_size, window } = this.site.input;
    if (any_size) {
      const promised = this.site.models[0].promise ? " What it promises is not of such." : "";
      return `Resized for the student, which sees ${columns} × ${rows} pixels at once.${promised} `;
    }
    const there = window ? `slides a window of ${window[1]} × ${window[0]} over it` : "shows it at its own size";
    return `Fitted into the ${columns} × ${rows} pixels that this file takes; counterpoise predict ${there}. `;
  }

  /** Lay the colors of the classes that are shown over the pictures. */
  #color(answers) {
    for (const [index, { width, height, classes }] of answers.entries()) {
      const { mask } = this.columns[index];
      mask.width = width;
      mask.height = height;
      const pixels = new ImageData(width, height);
      const colors = new Map(); // by value: of several questions the mean of their colors
      for (let at = 0; at < classes.length; at++) {
        if (!colors.has(classes[at])) colors.set(classes[at], this.#colorOf(classes[at]));
        const color = colors.get(classes[at]);
        if (color) pixels.data.set(color, at * 4);
      }
      mask.getContext("2d").putImageData(pixels, 0, 0);
    }
  }

  /** The color of a value of a mask, with its opacity; null where nothing of it is shown. */
  #colorOf(value) {
    const shown = this.#meant(value).filter((at) => !this.#hidden.has(at));
    if (!shown.length) return null;
    const mean = [0, 1, 2].map((part) => shown.reduce((sum, at) => sum + this.site.colors[at][part], 0) / shown.length);
    return [...mean.map(Math.round), 255];
  }

  /** The classes that a value of a mask stands for: one, or of questions those that are answered by yes. */
  #meant(value) {
    if (this.site.sigmoid) return [...this.site.classes.keys()].filter((at) => (value >>> at) & 1);
    return value < this.site.classes.length ? [value] : []; // else the student is not sure
  }

  #shares({ classes }) {
    const counts = new Float64Array(this.site.classes.length), values = new Map();
    for (const value of classes) values.set(value, (values.get(value) ?? 0) + 1);
    for (const [value, count] of values) for (const at of this.#meant(value)) counts[at] += count;
    const found = [...counts.keys()].filter((at) => counts[at] > 0);
    return found.map((at) => ({ at, share: counts[at] / classes.length })).sort((a, b) => b.share - a.share);
  }

  /** The classes of the first answer; each is a switch that shows or hides its color. */
  #legend(answers) {
    at("legend-block").hidden = false;
    const rows = this.#shares(answers[0]).map(({ at, share }) => {
      const swatch = element("span", "swatch");
      swatch.style.background = `rgb(${this.site.colors[at].join(" ")})`;
      const label = element("span", "name clip", this.site.classes[at]);
      label.dir = "auto";
      const button = element("button", "class");
      button.type = "button";
      button.append(swatch, label, element("span", "share", percent(share)));
      button.setAttribute("aria-pressed", String(!this.#hidden.has(at)));
      button.addEventListener("click", () => {
        if (!this.#hidden.delete(at)) this.#hidden.add(at);
        button.setAttribute("aria-pressed", String(!this.#hidden.has(at)));
        this.#color(answers);
      });
      const row = element("li", "");
      row.append(button);
      return row;
    });
    if (this.site.models[0].promise) {
      const { classes } = answers[0];
      const unsure = classes.reduce((sum, value) => sum + (value === UNSURE), 0) / classes.length;
      const row = element("li", "unsure");
      row.append(element("span", "swatch"), element("span", "name", "not sure"), element("span", "share", percent(unsure)));
      rows.push(row);
    }
    at("legend").replaceChildren(...rows);
  }

  #fade() {
    const opacity = Number(at("opacity").value);
    at("opacity-value").textContent = `${opacity} %`;
    for (const { mask } of this.columns) mask.style.opacity = String(opacity / 100);
  }

  /** Add a picture to what is known of how far the exports agree. */
  #count(answers) {
    const dense = this.site.dense;
    const place = at("agreement");
    const note = element("span", "quiet", document.body.dataset.note ?? "");
    place.replaceChildren();
    if (answers.length > 1) {
      const seen = this.#seen;
      seen.pictures++;
      const [one, other] = dense ? answers.map(({ classes }) => classes) : answers.map(({ probabilities }) => probabilities);
      if (dense) {
        seen.same += one.reduce((sum, value, index) => sum + (value === other[index]), 0) / one.length;
      } else {
        const alike = (at) => this.#there(one, at) === this.#there(other, at);
        seen.same += Number(this.site.sigmoid ? [...one.keys()].every(alike) : best(one)[0] === best(other)[0]);
        seen.difference += one.reduce((most, value, index) => Math.max(most, Math.abs(value - other[index])), 0);
      }
      place.append(dense ? pixelsAgree(seen) : answersAgree(seen, this.site.sigmoid), " ");
    }
    if (note.textContent) place.append(note);
    place.hidden = place.childNodes.length === 0;
  }
}

function pixelsAgree({ pictures, same }) {
  return `Float and 8 bits agree on ${percent(same / pictures)} of the pixels of ${count(pictures)}.`;
}

function answersAgree({ pictures, same, difference }, labels) {
  const points = ((100 * difference) / pictures).toFixed(1);
  if (pictures === 1) {
    const what = labels ? "labels" : same ? "first answer" : "first answers";
    const alike = same ? `the same ${what}` : `different ${what}`;
    return `Float and 8 bits give ${alike} here; no probability differs by more than ${points} points.`;
  }
  return (
    `Float and 8 bits give the same ${labels ? "labels" : "first answer"} on ${same} of ${count(pictures)}; ` +
    `the probability that differs most does so by ${points} points on average.`
  );
}

function count(pictures) {
  return pictures === 1 ? "this picture" : `${pictures} pictures`;
}

/** The indices of the largest probabilities, ties in the order of the classes. */
function best(probabilities) {
  return ranked(probabilities).slice(0, RANKS);
}

function ranked(probabilities) {
  return [...probabilities.keys()].sort((a, b) => probabilities[b] - probabilities[a] || a - b);
}

function draw(canvas, bitmap) {
  canvas.width = bitmap.width;
  canvas.height = bitmap.height;
  canvas.classList.toggle("tiny", Math.max(bitmap.width, bitmap.height) < 200);
  canvas.getContext("2d").drawImage(bitmap, 0, 0);
}

function element(tag, name, text = "") {
  const made = document.createElement(tag);
  if (name) made.className = name;
  if (text) made.textContent = text;
  return made;
}

function percent(share) {
  return `${(100 * share).toFixed(1)} %`;
}

function readable(milliseconds) {
  if (milliseconds < 0.1) return "< 0.1 ms";
  return `${milliseconds < 10 ? milliseconds.toFixed(1) : Math.round(milliseconds)} ms`;
}

function weight(bytes) {
  if (bytes < 1e6) return `${Math.max(1, Math.round(bytes / 1e3))} KB`;
  return `${(bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0)} MB`;
}
