// Segmentation: how a scene is shown to the student, and its logits made a mask, as in tasks/segmentation.py. An export
// takes any size, or one; where a scene has another than that, windows of that size slide over it.

import { planes, resize, round, withoutFarEnds } from "./resampling.js";

const MOST_MASK_PIXELS = 4e6; // of a mask on screen
const MOST_SEEN_PIXELS = 2e6; // by an export of any size, which would take gigabytes for the photos of a phone

/**
 * How a picture is shown: reduced as the student was told, and whole where the export takes any size or just that. Any
 * other is resized, its shape kept, until the window covers its shorter side and slides along the longer one.
 * @param {{size: [number, number], any_size: boolean, reduction: number}} input of the student; size: height and width.
 * @returns {{part: object, width: number, height: number, exact: boolean, rows: number, columns: number,
 *   tops: number[], lefts: number[]}} rows and columns: of a window
 */
export function plan(picture, input) {
  let [rows, columns] = input.size;
  let part = { left: 0, top: 0, width: picture.width, height: picture.height };
  let width = Math.max(1, round(part.width / input.reduction));
  let height = Math.max(1, round(part.height / input.reduction));
  let exact = width === columns && height === rows;
  if (input.any_size) {
    const scale = Math.sqrt(MOST_SEEN_PIXELS / (width * height));
    exact = scale >= 1;
    if (!exact) [width, height] = [width, height].map((side) => Math.max(1, Math.floor(side * scale)));
    [rows, columns] = [height, width];
  } else if (!exact) {
    part = withoutFarEnds(picture);
    const scale = Math.max(columns / part.width, rows / part.height);
    width = Math.max(columns, round(part.width * scale));
    height = Math.max(rows, round(part.height * scale));
  }
  return { part, width, height, exact, rows, columns, tops: starts(height, rows), lefts: starts(width, columns) };
}

/** Where windows begin: moved by two thirds of their size, the last one ends with the picture. */
function starts(length, window) {
  const stride = Math.max(1, Math.floor((window * 2) / 3));
  const found = [];
  for (let at = 0; at < length - window; at += stride) found.push(at);
  return [...found, length - window];
}

/**
 * The class of every pixel.
 * @param {(pixels: Uint8Array, size: [number, number]) => Promise<{data: Float32Array, dims: number[]}>} answer logits
 *   [1, C, h, w] of one window of this height and width
 * @returns {Promise<{width, height, classes: Uint8Array, milliseconds: number, windows: number, exact: boolean,
 *   seen: [number, number]}>} seen: height and width of a window
 */
export async function segment(picture, input, answer) {
  const view = plan(picture, input);
  const { rows, columns } = view;
  const shown = resize(picture, view.part, view.width, view.height);
  const many = view.tops.length * view.lefts.length > 1;
  let logits = null;
  let milliseconds = 0;
  for (const top of view.tops) {
    for (const left of view.lefts) {
      const window = { left, top, width: columns, height: rows };
      const pixels = planes(many ? resize(shown, window, columns, rows) : shown);
      const started = performance.now();
      const { data, dims } = await answer(pixels, [rows, columns]);
      milliseconds += performance.now() - started;
      const [, classes, height, width] = dims;
      const found = { data, classes, height, width };
      if (!many) {
        logits = found;
        break;
      }
      logits ??= {
        data: new Float32Array(classes * view.height * view.width),
        seen: new Float32Array(view.height * view.width),
        classes,
        height: view.height,
        width: view.width,
      };
      add(logits, upsample(found, rows, columns), window);
    }
  }
  if (logits.seen) divide(logits);
  const whole = view.part.width * view.part.height;
  const shrink = Math.min(1, Math.sqrt(MOST_MASK_PIXELS / whole));
  const width = Math.max(1, Math.round(view.part.width * shrink));
  const height = Math.max(1, Math.round(view.part.height * shrink));
  const mask = argmax(logits, height, width);
  const windows = view.tops.length * view.lefts.length;
  const seen = [rows, columns];
  return { width, height, classes: mask, part: view.part, milliseconds, windows, exact: view.exact, seen };
}

function add(total, { data, height, width }, { left, top }) {
  for (let c = 0; c < total.classes; c++) {
    for (let y = 0; y < height; y++) {
      const to = (c * total.height + top + y) * total.width + left;
      const from = (c * height + y) * width;
      for (let x = 0; x < width; x++) total.data[to + x] += data[from + x];
    }
  }
  for (let y = 0; y < height; y++) {
    const to = (top + y) * total.width + left;
    for (let x = 0; x < width; x++) total.seen[to + x] += 1;
  }
}

function divide({ data, seen, classes }) {
  for (let c = 0; c < classes; c++) {
    for (let index = 0; index < seen.length; index++) data[c * seen.length + index] /= seen[index];
  }
}

/** Bilinear between pixel centers, edges held (align_corners false). */
function between(from, to) {
  const near = new Int32Array(to), far = new Int32Array(to), share = new Float32Array(to);
  for (let index = 0; index < to; index++) {
    const place = Math.max(0, ((index + 0.5) * from) / to - 0.5);
    near[index] = Math.min(from - 1, Math.floor(place));
    far[index] = Math.min(from - 1, near[index] + 1);
    share[index] = place - near[index];
  }
  return { near, far, share };
}

function upsample(logits, height, width) {
  if (logits.height === height && logits.width === width) return logits;
  const data = new Float32Array(logits.classes * height * width);
  eachRow(logits, height, width, (y, row) => {
    for (let c = 0; c < logits.classes; c++) data.set(row.subarray(c * width, (c + 1) * width), (c * height + y) * width);
  });
  return { data, classes: logits.classes, height, width };
}

function argmax(logits, height, width) {
  const mask = new Uint8Array(height * width);
  eachRow(logits, height, width, (y, row) => {
    for (let x = 0; x < width; x++) {
      let best = 0;
      for (let c = 1; c < logits.classes; c++) if (row[c * width + x] > row[best * width + x]) best = c;
      mask[y * width + x] = best;
    }
  });
  return mask;
}

/** Upsampled logits a row at a time, [C, width], so that they are never held whole. */
function eachRow({ data, classes, height, width }, tall, wide, take) {
  const down = between(height, tall), across = between(width, wide);
  const line = new Float32Array(width), row = new Float32Array(classes * wide);
  for (let y = 0; y < tall; y++) {
    for (let c = 0; c < classes; c++) {
      const near = (c * height + down.near[y]) * width, far = (c * height + down.far[y]) * width;
      for (let x = 0; x < width; x++) line[x] = data[near + x] + (data[far + x] - data[near + x]) * down.share[y];
      for (let x = 0; x < wide; x++) {
        const left = line[across.near[x]];
        row[c * wide + x] = left + (line[across.far[x]] - left) * across.share[x];
      }
    }
    take(y, row);
  }
}
