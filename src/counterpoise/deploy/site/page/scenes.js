// Segmentation: how a scene is shown to the student, and its logits made a mask, as run.py beside an export does it. An
// export takes any size, or one; where a scene has another than that, it is fitted in, its shape kept.

import { planes, resize, round } from "./resampling.js";

const MOST_MASK_PIXELS = 4e6; // of a mask on screen
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
 * @returns {Promise<{width, height, classes: Uint8Array|Uint32Array, milliseconds: number, exact: boolean,
 *   seen: [number, number]}>} seen: height and width of what the export is given
 */
export async function segment(picture, input, answer, least = null) {
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
  const mask = least ? answered(logits, height, width, least) : argmax(logits, height, width);
  return { width, height, classes: mask, milliseconds, exact: view.exact, seen: [rows, columns] };
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

function answered(logits, height, width, least) {
  const mask = new Uint32Array(height * width);
  eachRow(logits, height, width, (y, row) => {
    for (let x = 0; x < width; x++) {
      let there = 0;
      for (let c = 0; c < logits.classes; c++) if (row[c * width + x] >= least[c]) there |= 1 << c;
      mask[y * width + x] = there;
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
