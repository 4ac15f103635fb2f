// Segmentation: how a scene is shown to the student, and its logits made a mask, as run.py beside an export does it. An
// export takes any size, or one; where a scene has another than that, it is fitted in, its shape kept.

import { planes, resize, round } from "./resampling.js";

export const UNSURE = 255; // in a mask: a pixel that a student with a promise does not answer

const MOST_MASK_PIXELS = 4e6; // of a mask on screen
const MOST_HELD = 2 ** 24; // logits under a row of windows
const MOST_SEEN_PIXELS = 2e6; // by an export of any size, which would take gigabytes for the photos of a phone

/**
 * How a picture is shown: reduced as the student was told, or by a larger factor where the export takes one size and it
 * would not fit; then in the upper left of what it takes (decoding.py, letterbox).
 * @param {{size: [number, number], any_size: boolean, reduction: number, around: ?number[]}} input of the student; size:
 *   height and width; around: the color beside a picture that is fitted in; without one it is resized whole.
 * @returns {{width: number, height: number, exact: boolean, rows: number, columns: number}} width, height: of the
 *   picture as shown; rows, columns: of what the export is given
 */
export function plan(picture, input) {
  let [rows, columns] = input.size;
  let width = Math.max(1, round(picture.width / input.reduction));
  let height = Math.max(1, round(picture.height / input.reduction));
  let exact = width === columns && height === rows;
  if (input.any_size) {
    const scale = Math.sqrt(MOST_SEEN_PIXELS / (width * height));
    exact = scale >= 1;
    if (!exact) [width, height] = [width, height].map((side) => Math.max(1, Math.floor(side * scale)));
    [rows, columns] = [height, width];
  } else if (!exact) {
    const scale = Math.min(1 / input.reduction, rows / picture.height, columns / picture.width);
    const fitted = (side, most) => (input.around ? Math.min(most, Math.max(1, round(side * scale))) : most);
    [width, height] = [fitted(picture.width, columns), fitted(picture.height, rows)];
  }
  return { width, height, exact, rows, columns };
}

/**
 * The class of every pixel; of questions, those that are answered by yes, question n as bit n.
 * @param {(pixels: Uint8Array, size: [number, number]) => Promise<{data: Float32Array, dims: number[]}>} answer logits
 *   [1, C, h, w] of pixels of this height and width
 * @param {?number[]} least the logit from which on each class is there, where each is a question of its own
 * @param {?{temperature: number, threshold: number}} promise from which probability on a pixel is answered
 * @returns {Promise<{width, height, classes: Uint8Array|Uint32Array, milliseconds: number, exact: boolean,
 *   seen: [number, number]}>} seen: height and width of what the export is given
 */
export async function segment(picture, input, answer, least = null, promise = null) {
  const view = plan(picture, input);
  const { rows, columns } = view;
  const all = { left: 0, top: 0, width: picture.width, height: picture.height };
  const fitted = boxed(resize(picture, all, view.width, view.height), columns, rows, input.around);
  const started = performance.now();
  const { data, dims } = await answer(planes(fitted), [rows, columns]);
  const milliseconds = performance.now() - started;
  let logits = { data, classes: dims[1], height: dims[2], width: dims[3] };
  if (view.height !== rows || view.width !== columns) logits = cut(logits, view);
  const shrink = Math.min(1, Math.sqrt(MOST_MASK_PIXELS / (all.width * all.height)));
  const width = Math.max(1, Math.round(all.width * shrink));
  const height = Math.max(1, Math.round(all.height * shrink));
  const mask = least ? answered(logits, height, width, least) : argmax(logits, height, width, promise);
  return { width, height, classes: mask, milliseconds, exact: view.exact, seen: [rows, columns] };
}

/**
 * The same of a picture of any size through a window that slides over it, as tasks/sliding.py: logits are held for a row
 * of windows, of many classes for a part of that row.
 * @param input with sliding: {stride: [down, across], blend}; size is that of the window
 * @param {(share: number) => void} progress told how much is done, 0 to 1
 * @param {number} most logits held for a row of windows; windows between two parts of it are asked about in both
 */
export async function slide(picture, input, answer, least = null, promise = null, progress = () => {}, most = MOST_HELD) {
  const [rows, columns] = [picture.height, picture.width].map((side) => Math.max(1, round(side / input.reduction)));
  const all = { left: 0, top: 0, width: picture.width, height: picture.height };
  const shown = rows === picture.height && columns === picture.width ? picture : resize(picture, all, columns, rows);
  const [high, wide] = [Math.min(input.size[0], rows), Math.min(input.size[1], columns)];
  const { stride, blend } = input.sliding;
  const tops = begins(rows, high, stride[0]), lefts = begins(columns, wide, stride[1]);
  const weight = weightsOf(high, wide, blend);
  const shrink = Math.min(1, Math.sqrt(MOST_MASK_PIXELS / (all.width * all.height)));
  const [height, width] = [all.height, all.width].map((side) => Math.max(1, Math.round(side * shrink)));
  const down = between(rows, height), across = between(columns, width);
  const classes = least ? new Uint32Array(height * width) : new Uint8Array(height * width);
  let milliseconds = 0, done = 0;
  const ask = async (top, left) => {
    const part = partOf(shown, { left, top, width: wide, height: high });
    const given = planes(boxed(part, input.size[1], input.size[0], input.around));
    const started = performance.now();
    const { data, dims } = await answer(given, input.size);
    milliseconds += performance.now() - started;
    const logits = { data, classes: dims[1], height: dims[2], width: dims[3] };
    const view = { height: high, width: wide, rows: input.size[0], columns: input.size[1] };
    return view.height === view.rows && view.width === view.columns ? logits : cut(logits, view);
  };
  const first = await ask(0, 0);
  const count = first.classes;
  const strips = Math.ceil((count * high * columns) / most);
  const step = Math.max(1, Math.ceil(width / strips));
  for (let from = 0; from < width; from += step) {
    const to = Math.min(width, from + step);
    const begin = across.near[from], end = across.far[to - 1] + 1;
    const near = lefts.filter((left) => left < end && left + wide > begin);
    const held = high + 2, line = end - begin;
    const total = new Float32Array(count * held * line), seen = new Float32Array(held * line);
    let base = 0, given = 0;
    for (const [index, top] of tops.entries()) {
      for (const left of near) {
        const logits = top === 0 && left === 0 && from === 0 ? first : await ask(top, left);
        add({ total, seen, held, line }, logits, weight, { top: top - base, left: left - begin, high, wide });
        progress((done + (near.indexOf(left) + 1) / near.length) / (tops.length * Math.ceil(width / step)));
      }
      done++;
      const stop = tops[index + 1] ?? rows;
      for (; given < height && down.far[given] < stop; given++) {
        const row = rowOf({ total, seen, held, line, count }, given, down, across, base, begin, from, to);
        if (least) yeses(row, least, classes.subarray(given * width + from, given * width + to));
        else largest(row, count, classes.subarray(given * width + from, given * width + to), promise);
      }
      if (given < height) {
        const move = down.near[given] - base;
        for (const layer of [...Array(count).keys()].map((c) => total.subarray(c * held * line, (c + 1) * held * line)).concat(seen)) {
          layer.copyWithin(0, move * line);
          layer.fill(0, Math.max(0, held - move) * line);
        }
        base += move;
      }
    }
  }
  return { width, height, classes, milliseconds, exact: true, seen: input.size };
}

/** Where windows along a side begin; the last one ends with it. */
function begins(length, window, stride) {
  const found = [];
  for (let start = 0; start < length - window; start += stride) found.push(start);
  return [...found, length - window];
}

/** How much each pixel of a window counts: tasks/sliding.py, weights. Null: all alike. */
function weightsOf(high, wide, blend) {
  if (blend === "mean") return null;
  const [down, across] = [high, wide].map((edge) => {
    return Float64Array.from({ length: edge }, (_, index) => {
      const place = index + 0.5;
      if (blend === "linear") return Math.min(place, edge - place) / (edge / 2);
      return Math.exp(-((place - edge / 2) ** 2) / (2 * (edge / 8) ** 2));
    });
  });
  return Float32Array.from({ length: high * wide }, (_, at) => Math.max(1e-3, down[Math.floor(at / wide)] * across[at % wide]));
}

function partOf(picture, part) {
  if (!picture.data) return picture.part(part);
  return resize(picture, part, part.width, part.height);
}

/** Add the logits of a window, enlarged to it, where it lies among what is held, as far as that reaches. */
function add({ total, seen, held, line }, logits, weight, { top, left, high, wide }) {
  const first = Math.max(0, -left), last = Math.min(wide, line - left);
  const down = between(logits.height, high), across = between(logits.width, wide);
  const same = logits.height === high && logits.width === wide;
  for (let y = 0; y < high; y++) {
    const here = (top + y) * line + left;
    for (let x = first; x < last; x++) seen[here + x] += weight ? weight[y * wide + x] : 1;
    for (let c = 0; c < logits.classes; c++) {
      const upper = (c * logits.height + down.near[y]) * logits.width, lower = (c * logits.height + down.far[y]) * logits.width;
      const { data } = logits, to = c * held * line + here, share = down.share[y];
      for (let x = first; x < last; x++) {
        let value;
        if (same) {
          value = data[upper + x];
        } else {
          const one = across.near[x], two = across.far[x], rest = across.share[x];
          const a = data[upper + one] + (data[lower + one] - data[upper + one]) * share;
          const b = data[upper + two] + (data[lower + two] - data[upper + two]) * share;
          value = a + (b - a) * rest;
        }
        total[to + x] += weight ? value * weight[y * wide + x] : value;
      }
    }
  }
}

/** Means over windows of a row of the mask, between the rows and columns that are held: [C, columns]. */
function rowOf({ total, seen, held, line, count }, y, down, across, base, begin, from, to) {
  const upper = (down.near[y] - base) * line, lower = (down.far[y] - base) * line, share = down.share[y];
  const result = new Float32Array(count * (to - from));
  const mean = (c, at) => Math.fround(total[c * held * line + at] / seen[at]);
  for (let c = 0, put = 0; c < count; c++) {
    for (let x = from; x < to; x++, put++) {
      const one = across.near[x] - begin, two = across.far[x] - begin, rest = across.share[x];
      let value = mean(c, upper + one);
      if (share) value += (mean(c, lower + one) - value) * share;
      if (rest) {
        let right = mean(c, upper + two);
        if (share) right += (mean(c, lower + two) - right) * share;
        value += (right - value) * rest;
      }
      result[put] = value;
    }
  }
  return result;
}

/** The largest of each pixel's logits; UNSURE where its probability is below the threshold of a promise. */
function largest(row, count, to, promise) {
  for (let x = 0; x < to.length; x++) {
    let best = 0;
    for (let c = 1; c < count; c++) if (row[c * to.length + x] > row[best * to.length + x]) best = c;
    to[x] = best;
    if (promise) {
      let sum = 0;
      for (let c = 0; c < count; c++) sum += Math.exp((row[c * to.length + x] - row[best * to.length + x]) / promise.temperature);
      if (1 / sum < promise.threshold) to[x] = UNSURE;
    }
  }
}

function yeses(row, least, to) {
  for (let x = 0; x < to.length; x++) {
    let there = 0;
    for (let c = 0; c < least.length; c++) if (row[c * to.length + x] >= least[c]) there |= 1 << c;
    to[x] = there;
  }
}

/** A picture in the upper left of a board of this color. */
function boxed(picture, width, height, color) {
  if (picture.width === width && picture.height === height) return picture;
  const data = new Uint8ClampedArray(width * height * 4);
  for (let at = 0; at < data.length; at += 4) data.set([...color, 255], at);
  const line = picture.width * 4;
  for (let y = 0; y < picture.height; y++) {
    data.set(picture.data.subarray(y * line, (y + 1) * line), y * width * 4);
  }
  return { width, height, data };
}

/** Of the logits of a board, those of the picture in its upper left: decoding.py, cut. */
function cut({ data, classes, height, width }, view) {
  const down = kept(height, view.height, view.rows), across = kept(width, view.width, view.columns);
  const result = new Float32Array(classes * down.count * across.count);
  const line = new Float32Array(width);
  for (let c = 0, to = 0; c < classes; c++) {
    for (let y = 0; y < down.count; y++) {
      const here = (c * height + y) * width, above = (c * height + Math.max(0, y - 1)) * width;
      for (let x = 0; x < width; x++) line[x] = data[here + x] + (data[above + x] - data[here + x]) * down.back[y];
      for (let x = 0; x < across.count; x++, to++) {
        result[to] = line[x] + (line[Math.max(0, x - 1)] - line[x]) * across.back[x];
      }
    }
  }
  return { data: result, classes, height: down.count, width: across.count };
}

/** How many of so many cells lie over `edge` of `whole` pixels, and by which share of a cell each moves back. */
function kept(cells, edge, whole) {
  const count = Math.ceil((cells * edge) / whole);
  const move = 1 - (cells * edge) / (whole * count);
  return { count, back: Float32Array.from({ length: count }, (_, place) => (place + 0.5) * move) };
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

function argmax(logits, height, width, promise) {
  const mask = new Uint8Array(height * width);
  eachRow(logits, height, width, (y, row) => largest(row, logits.classes, mask.subarray(y * width, (y + 1) * width), promise));
  return mask;
}

function answered(logits, height, width, least) {
  const mask = new Uint32Array(height * width);
  eachRow(logits, height, width, (y, row) => yeses(row, least, mask.subarray(y * width, (y + 1) * width)));
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
