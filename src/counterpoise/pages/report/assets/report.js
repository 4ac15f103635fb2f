"use strict";
// Draws the charts of a report with Observable Plot, and brings its tabs, tables, scenes and colors to life.
(() => {
  const color = (name) => (name ? `var(--${name})` : "var(--soft)");
  const short = (value) => (Math.abs(value) >= 1000 ? value.toLocaleString("en", { notation: "compact" }) : String(+value.toPrecision(3)));
  const common = (width, height, more) => ({ className: "plot", width, height, ...more });
  // Ticks of a logarithmic axis: powers of ten, and 2 and 5 of each where there are few of these.
  const decades = (low, high) => {
    const [from, to] = [Math.floor(Math.log10(low)), Math.ceil(Math.log10(high))];
    const steps = to - from > 4 ? [1] : to - from > 2 ? [1, 3] : [1, 2, 5];
    const all = Array.from({ length: to - from + 1 }, (_, at) => steps.map((step) => step * 10 ** (from + at))).flat();
    const within = (ticks) => ticks.filter((tick) => tick >= low * 0.999 && tick <= high * 1.001);
    const found = within(all);
    if (found.length > 2) return found;
    const finer = [from, to].flatMap((power) => [1, 1.5, 2, 3, 4, 5, 7].map((step) => step * 10 ** power));
    return within([...new Set(finer)]);
  };
  const longest = (names) => Math.max(0, ...names.map((name) => [...name].length));

  // Each takes the data of a chart and a width, and gives what Plot.plot takes.
  const kinds = {
    standing({ methods, unit }, width) {
      const runs = methods.flatMap(({ name, color, values }) => values.map((value) => ({ name, color, value })));
      const values = runs.map((run) => run.value);
      const low = Math.min(...values), high = Math.max(...values), room = Math.max(2, (high - low) * 0.08);
      return common(width, 34 * methods.length + 46, {
        marginLeft: Math.min(width * 0.34, 20 + 6.6 * longest(methods.map((one) => one.name))), marginRight: 54,
        x: { label: null, domain: [Math.max(0, low - room), Math.min(100, high + room)], ticks: width / 90, tickSize: 0 },
        y: { label: null, domain: methods.map((one) => one.name), tickSize: 0 },
        marks: [
          Plot.gridX({ stroke: "var(--line)", strokeOpacity: 1, ticks: width / 90 }),
          Plot.dot(runs, { x: "value", y: "name", r: 4.5, fill: (run) => color(run.color), fillOpacity: 0.38, tip: true,
            channels: { [unit]: { value: "value", label: unit } }, title: (run) => `${run.name}: ${run.value.toFixed(2)}` }),
          Plot.tickX(methods, { x: "mean", y: "name", stroke: (one) => color(one.color), strokeWidth: 3, insetTop: 5, insetBottom: 5 }),
          Plot.text(methods, { x: (one) => Math.max(...one.values, one.mean), y: "name", dx: 12, textAnchor: "start", fontWeight: 640, fontSize: 13,
            fill: "var(--ink)", text: (one) => one.mean.toFixed(1) }),
        ],
      });
    },

    lines({ series, across, up, log, levels }, width) {
      const points = series.flatMap(({ name, color, points }) => points.map(([x, y]) => ({ x, y, name, color })));
      const places = points.map((point) => point.x);
      const values = [...points, ...levels].map((point) => point.y);
      const ticks = log ? decades(Math.min(...values), Math.max(...values)) : 5;
      return common(width, 230, {
        marginLeft: 46, marginRight: 14, marginTop: 14, marginBottom: 34,
        x: { label: across, labelAnchor: "right", labelArrow: "none", ticks: Math.min(width / 80, Math.max(...places) - Math.min(...places)), tickSize: 0, tickFormat: short },
        y: { label: up || null, type: log ? "log" : "linear", nice: !log, ticks, tickSize: 0, tickFormat: short, zero: false },
        marks: [
          Plot.gridY({ stroke: "var(--line)", strokeOpacity: 1, ticks }),
          Plot.ruleY(levels, { y: "y", stroke: (level) => color(level.color), strokeDasharray: "5 4", strokeWidth: 1.5 }),
          Plot.lineY(points, { x: "x", y: "y", z: "name", stroke: (point) => color(point.color), strokeWidth: 1.8, strokeLinejoin: "round" }),
          Plot.tip(points, Plot.pointer({ x: "x", y: "y", fill: "var(--surface)", stroke: "var(--line)", textPadding: 7,
            title: (point) => `${point.name}\n${across} ${point.x.toLocaleString("en")}: ${short(point.y)}` })),
        ],
      });
    },

    masses({ rows, ranks }, width) {
      const shown = rows.filter((row) => row.mass > 0);
      const low = Math.max(1e-6, Math.min(...shown.map((row) => row.mass)) / 1.4);
      const ticks = decades(low, 100);
      return common(width, 42 * ranks.length + 56, {
        marginLeft: 20 + 7 * longest(ranks), marginRight: 18, marginBottom: 34,
        x: { label: "probability, %", labelAnchor: "right", labelArrow: "none", type: "log", domain: [low, 100], ticks, tickSize: 0, tickFormat: short },
        y: { label: "rank", labelArrow: "none", domain: ranks, tickSize: 0 },
        marks: [
          Plot.gridX({ stroke: "var(--line)", strokeOpacity: 1, ticks }),
          Plot.ruleY(ranks, { y: (rank) => rank, x1: (rank) => Math.min(...shown.filter((row) => row.ranks === rank).map((row) => row.mass)),
            x2: (rank) => Math.max(...shown.filter((row) => row.ranks === rank).map((row) => row.mass)), stroke: "var(--line)", strokeWidth: 4 }),
          Plot.dot(shown, { x: "mass", y: "ranks", r: 6, fill: (row) => color(row.color), stroke: "var(--surface)", strokeWidth: 1.5 }),
          Plot.tip(shown, Plot.pointer({ x: "mass", y: "ranks", fill: "var(--surface)", stroke: "var(--line)", title: (row) => `${row.who}, rank ${row.ranks}: ${short(row.mass)}%` })),
        ],
      });
    },

    split({ rows, ranks, sides, who }, width) {
      const narrow = width < 420;
      return common(width, (narrow ? 2 : 1) * (ranks.length * (10 * who.length + 16)) + 78, {
        marginLeft: 20 + 7 * longest(ranks), marginRight: 14, marginTop: 26, marginBottom: 34,
        [narrow ? "fy" : "fx"]: { label: null, axis: null, domain: sides, padding: narrow ? 0.22 : 0.14 },
        x: { label: "nats", labelAnchor: "right", labelArrow: "none", ticks: 3, tickSize: 0, tickFormat: short },
        y: { axis: null, domain: ranks.flatMap((rank) => [...who.map((name) => `${rank} ${name}`), `${rank} `]), padding: 0.12 },
        marks: [
          Plot.gridX({ stroke: "var(--line)", strokeOpacity: 1, ticks: 3 }),
          Plot.barX(rows, { [narrow ? "fy" : "fx"]: "side", x: "nats", y: (row) => `${row.ranks} ${row.who}`, fill: (row) => color(row.color), title: (row) => `${row.who}, rank ${row.ranks}: ${row.nats.toFixed(4)} nats`, tip: { fill: "var(--surface)", stroke: "var(--line)" } }),
          Plot.text(sides, { [narrow ? "fy" : "fx"]: (side) => side, frameAnchor: "top-left", dy: -16, text: (side) => side, fill: "var(--ink)" }),
          Plot.text(ranks.flatMap((rank) => (narrow ? sides : sides.slice(0, 1)).map((side) => ({ rank, side }))), { [narrow ? "fy" : "fx"]: "side", y: ({ rank }) => `${rank} ${who[Math.floor(who.length / 2)]}`, frameAnchor: "left", dx: -8, textAnchor: "end", text: "rank" }),
        ],
      });
    },

    reliability({ rows }, width) {
      const most = Math.max(...rows.map((row) => row.count));
      const total = (who) => rows.filter((row) => row.who === who).reduce((sum, row) => sum + row.count, 0);
      const points = rows.map((row) => ({ ...row, confidence: 100 * row.confidence, accuracy: 100 * row.accuracy }));
      return common(width, Math.min(340, width * 0.82), {
        marginLeft: 46, marginRight: 14, marginBottom: 36, marginTop: 20,
        x: { label: "confidence, %", labelAnchor: "right", labelArrow: "none", domain: [0, 100], ticks: 5, tickSize: 0 },
        y: { label: "right, %", labelArrow: "none", domain: [0, 100], ticks: 5, tickSize: 0 },
        r: { type: "identity" },
        marks: [
          Plot.gridX({ stroke: "var(--line)", strokeOpacity: 1, ticks: 5 }), Plot.gridY({ stroke: "var(--line)", strokeOpacity: 1, ticks: 5 }),
          Plot.link([0], { x1: 0, y1: 0, x2: 100, y2: 100, stroke: "var(--soft)", strokeDasharray: "4 4" }),
          Plot.lineY(points.filter((row) => row.count >= 0.005 * total(row.who)), { x: "confidence", y: "accuracy", z: "who", stroke: (row) => color(row.color), strokeWidth: 1.6 }),
          Plot.dot(points, { x: "confidence", y: "accuracy", fill: (row) => color(row.color), stroke: "var(--surface)", r: (row) => 2.5 + 6 * Math.sqrt(row.count / most) }),
          Plot.tip(points, Plot.pointer({ x: "confidence", y: "accuracy", fill: "var(--surface)", stroke: "var(--line)", title: (row) => `${row.who}: ${row.count.toLocaleString("en")} answers, ${short(row.confidence)}% sure, ${short(row.accuracy)}% right` })),
        ],
      });
    },

    risk({ series, promise }, width) {
      const points = series.flatMap(({ name, color, points }) => points.map(([x, y]) => ({ x, y, name, color })));
      const promised = promise ? [promise] : [];
      const kept = promised.filter((one) => one.wrong !== null);
      const own = color(series[0].color);
      const top = Math.max(1, ...points.map((point) => point.y), ...promised.map((one) => one.risk * 1.15));
      return common(width, Math.min(340, width * 0.82), {
        marginLeft: 46, marginRight: 14, marginBottom: 36, marginTop: 20,
        x: { label: "answered, %", labelAnchor: "right", labelArrow: "none", domain: [0, 100], ticks: 5, tickSize: 0 },
        y: { label: "wrong, %", labelArrow: "none", domain: [0, top], nice: true, ticks: 5, tickSize: 0, tickFormat: short },
        marks: [
          Plot.gridX({ stroke: "var(--line)", strokeOpacity: 1, ticks: 5 }), Plot.gridY({ stroke: "var(--line)", strokeOpacity: 1, ticks: 5 }),
          Plot.ruleY(promised, { y: "risk", stroke: "var(--soft)", strokeDasharray: "5 4", strokeWidth: 1.5 }),
          Plot.lineY(points, { x: "x", y: "y", z: "name", stroke: (point) => color(point.color), strokeWidth: 1.8, strokeLinejoin: "round" }),
          Plot.link(kept, { x1: "answered", x2: "answered", y1: "wrong", y2: "bound", stroke: own, strokeWidth: 2 }),
          Plot.link(kept, { x1: (one) => Math.max(0, one.answered - 1.5), x2: (one) => Math.min(100, one.answered + 1.5), y1: "bound", y2: "bound", stroke: own, strokeWidth: 2 }),
          Plot.dot(kept, { x: "answered", y: "wrong", r: 6, fill: own, stroke: "var(--surface)", strokeWidth: 1.5 }),
          Plot.text(promised, { x: 100, y: "risk", dx: -2, dy: -8, textAnchor: "end", fill: "var(--ink)", stroke: "var(--surface)", strokeWidth: 4,
            text: (one) => `promised: at most ${short(one.risk)}%` }),
          Plot.tip(points, Plot.pointer({ x: "x", y: "y", fill: "var(--surface)", stroke: "var(--line)", textPadding: 7,
            title: (point) => `${point.name}\n${short(point.x)}% answered: ${short(point.y)}% wrong` })),
        ],
      });
    },

    classes({ rows, classes }, width) {
      const of = (name) => rows.filter((row) => row.class === name).map((row) => row.value);
      const order = [...new Set(classes)];
      return common(width, 19 * order.length + 44, {
        marginLeft: Math.min(width * 0.4, 16 + 6.4 * longest(order)), marginRight: 14, marginBottom: 32,
        x: { label: null, domain: [0, 100], ticks: 5, tickSize: 0 },
        y: { label: null, domain: order, tickSize: 0 },
        marks: [
          Plot.gridX({ stroke: "var(--line)", strokeOpacity: 1, ticks: 5 }),
          Plot.ruleY(order, { y: (name) => name, x1: (name) => Math.min(...of(name)), x2: (name) => Math.max(...of(name)), stroke: "var(--line)", strokeWidth: 3 }),
          Plot.dot(rows, { x: "value", y: "class", r: 4.2, fill: (row) => color(row.color), stroke: "var(--surface)" }),
          Plot.tip(rows, Plot.pointer({ x: "value", y: "class", fill: "var(--surface)", stroke: "var(--line)", title: (row) => `${row.class}\n${row.who}: ${row.value.toFixed(1)}%` })),
        ],
      });
    },

    intervals({ rows, unit }, width) {
      const ends = rows.flatMap((row) => [row.low ?? row.mean, row.high ?? row.mean, 0]);
      const room = Math.max(0.5, Math.max(...ends) - Math.min(...ends)) * 0.06;
      return common(width, 32 * rows.length + 48, {
        marginLeft: Math.min(width * 0.42, 20 + 6.4 * longest(rows.map((row) => row.name))), marginRight: 16, marginBottom: 34,
        x: { label: unit, labelAnchor: "right", labelArrow: "none", domain: [Math.min(...ends) - room, Math.max(...ends) + room], ticks: width / 100, tickSize: 0, tickFormat: (value) => (value > 0 ? `+${short(value)}` : short(value).replace("-", "−")) },
        y: { label: null, domain: rows.map((row) => row.name), tickSize: 0 },
        marks: [
          Plot.gridX({ stroke: "var(--line)", strokeOpacity: 1, ticks: width / 100 }),
          Plot.ruleX([0], { stroke: "var(--soft)" }),
          Plot.link(rows.filter((row) => row.low !== null), { x1: "low", x2: "high", y1: "name", y2: "name", stroke: (row) => color(row.color), strokeWidth: 2.5, strokeLinecap: "round" }),
          Plot.dot(rows, { x: "mean", y: "name", r: 5, fill: (row) => color(row.color), stroke: "var(--surface)", strokeWidth: 1.5 }),
          Plot.tip(rows, Plot.pointer({ x: "mean", y: "name", fill: "var(--surface)", stroke: "var(--line)", title: (row) => `${row.name}: ${row.mean.toFixed(2)}\n${row.verdict}` })),
        ],
      });
    },

    cost({ points, across, up }, width) {
      const places = points.map((point) => point.x);
      const [low, high] = [Math.min(...places) / 1.5, Math.max(...places) * 1.5];
      const ticks = decades(low, high);
      return common(width, 280, {
        marginLeft: 46, marginRight: 30, marginBottom: 38, marginTop: 22,
        x: { label: across, labelAnchor: "right", labelArrow: "none", type: "log", domain: [low, high], ticks, tickSize: 0, tickFormat: short },
        y: { label: up, labelArrow: "none", nice: true, ticks: 5, tickSize: 0, inset: 12 },
        marks: [
          Plot.gridX({ stroke: "var(--line)", strokeOpacity: 1, ticks }), Plot.gridY({ stroke: "var(--line)", strokeOpacity: 1, ticks: 5 }),
          Plot.dot(points, { x: "x", y: "y", r: 6, fill: (point) => color(point.color), stroke: "var(--surface)", strokeWidth: 1.5 }),
          Plot.text(points, { x: "x", y: "y", text: "name", dy: -12, fill: "var(--ink)", className: "names" }),
          Plot.tip(points, Plot.pointer({ x: "x", y: "y", fill: "var(--surface)", stroke: "var(--line)", title: (point) => `${point.name}\n${across}: ${short(point.x)}\n${up}: ${short(point.y)}` })),
        ],
      });
    },
  };

  // Names of points that lie close: each goes above its point, below it or beside it, or is left to the tip and the table.
  function separate(chart) {
    const frame = chart.getBoundingClientRect();
    const taken = [];
    const free = (box) =>
      box.left >= frame.left && box.right <= frame.right &&
      taken.every((other) => box.right < other.left || box.left > other.right || box.bottom < other.top || box.top > other.bottom);
    for (const name of chart.querySelectorAll(".names text")) {
      const found = [[0, 0, "middle"], [0, 26, "middle"], [10, 13, "start"], [-10, 13, "end"]].some(([x, y, anchor]) => {
        name.setAttribute("x", x);
        name.setAttribute("y", y);
        name.setAttribute("text-anchor", anchor);
        return free(name.getBoundingClientRect());
      });
      if (found) taken.push(name.getBoundingClientRect());
      else name.remove();
    }
  }

  function draw(place) {
    const width = Math.floor(place.clientWidth);
    if (!width || width === place.drawn) return;
    place.drawn = width;
    const data = JSON.parse(document.getElementById(`data-${place.dataset.chart}`).textContent);
    const options = kinds[place.dataset.kind](data, width);
    const chart = Plot.plot({ ...options, ariaLabel: place.dataset.label });
    chart.setAttribute("role", "img");
    // The picture speaks as a whole; labels of groups within it may not be there.
    for (const group of chart.querySelectorAll("g[aria-label]")) group.removeAttribute("aria-label");
    place.replaceChildren(chart);
    separate(chart);
  }

  const places = document.querySelectorAll("[data-chart]");
  places.forEach(draw);
  const watcher = new ResizeObserver((entries) => entries.forEach((entry) => draw(entry.target)));
  places.forEach((place) => watcher.observe(place));

  for (const tabs of document.querySelectorAll("[data-tabs]")) {
    const list = tabs.querySelector('[role="tablist"]');
    const buttons = [...list.children];
    const choose = (chosen) => buttons.forEach((button) => {
      const own = button === chosen;
      button.setAttribute("aria-selected", own);
      button.tabIndex = own ? 0 : -1;
      document.getElementById(button.getAttribute("aria-controls")).hidden = !own;
    });
    list.hidden = false;
    tabs.classList.add("alive");
    buttons.forEach((button) => button.addEventListener("click", () => choose(button)));
    list.addEventListener("keydown", (event) => {
      const at = buttons.indexOf(document.activeElement);
      const next = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: buttons.length - 1 }[event.key];
      if (next === undefined) return;
      event.preventDefault();
      const chosen = buttons[(next + buttons.length) % buttons.length];
      choose(chosen);
      chosen.focus();
    });
    choose(tabs.dataset.first ? buttons[+tabs.dataset.first] : buttons[0]);
  }

  for (const table of document.querySelectorAll("[data-sortable]")) {
    const heads = [...table.tHead.rows[0].cells];
    const value = (row, column) => {
      const text = row.cells[column].textContent.trim();
      const number = Number.parseFloat(text.replaceAll(",", ""));
      return Number.isNaN(number) ? text : number;
    };
    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const rows = [...table.tBodies[0].rows].sort((one, other) => {
          const [a, b] = [value(one, column), value(other, column)];
          const order = typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b));
          return down ? -order : order;
        });
        table.tBodies[0].append(...rows);
      });
    });
  }

  for (const scene of document.querySelectorAll("[data-scene]")) {
    const layers = [...scene.querySelectorAll("[data-layer]")];
    const named = (name) => layers.find((layer) => layer.dataset.layer === name);
    const make = (tag, more) => Object.assign(document.createElement(tag), more);
    const stage = make("div", { className: "stage" });
    const base = make("img", { src: named("image").src, alt: "" });
    const sides = ["truth", "student"].map((first, index) => {
      const image = make("img", { alt: "" });
      const select = make("select", { ariaLabel: index ? "Shown on the right" : "Shown on the left" });
      for (const layer of layers) select.append(make("option", { value: layer.dataset.layer, textContent: layer.dataset.layer === "image" ? "picture" : layer.dataset.layer }));
      select.value = first;
      const show = () => {
        image.src = named(select.value).src;
        image.style.opacity = select.value === "image" ? 0 : "";
      };
      select.addEventListener("change", show);
      show();
      return { image, select };
    });
    const edge = make("div", { className: "edge" });
    const slider = make("input", { type: "range", min: 0, max: 100, value: 50, ariaLabel: "Where the left side ends, in percent of the width" });
    const move = () => {
      const at = +slider.value;
      sides[0].image.style.clipPath = `inset(0 ${100 - at}% 0 0)`;
      sides[1].image.style.clipPath = `inset(0 0 0 ${at}%)`;
      edge.style.left = `${at}%`;
    };
    slider.addEventListener("input", move);
    stage.addEventListener("pointermove", (event) => {
      if (event.pointerType === "mouse" && !event.buttons) return;
      const box = stage.getBoundingClientRect();
      slider.value = Math.round((100 * (event.clientX - box.left)) / box.width);
      move();
    });
    move();
    stage.append(base, sides[0].image, sides[1].image, edge);
    const controls = make("div", { className: "controls" });
    controls.append(sides[0].select, slider, sides[1].select);
    const viewer = make("div", { className: "viewer" });
    viewer.append(stage, controls);
    scene.insertBefore(viewer, scene.querySelector(".panels"));
    scene.classList.add("alive");
  }

  const theme = document.getElementById("theme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  const root = document.documentElement;
  const dark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
  const label = () => (theme.textContent = dark() ? "Light" : "Dark");
  theme.addEventListener("click", () => {
    root.dataset.theme = dark() ? "light" : "dark";
    label();
  });
  system.addEventListener("change", label);
  theme.hidden = false;
  label();

  const updates = document.body.dataset.updates;
  if (updates) {
    const { state } = document.body.dataset;
    setInterval(async () => {
      try {
        const text = await (await fetch(updates, { cache: "no-store" })).text();
        if (text !== state) location.reload();
      } catch {
        // The server is gone; what is shown stays.
      }
    }, 2000);
  }
})();
