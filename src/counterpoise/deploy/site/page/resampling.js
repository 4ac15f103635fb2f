// Pixels as counterpoise sees them (data/images.py): the resize is Pillow's antialiased bilinear one, to the last bit,
// because a canvas's own differs from browser to browser and by enough to change answers.
//
// A picture is {width, height, data}: RGBA, a byte each, rows from the top; alpha is ignored, for it is 255 by now.

const BITS = 22; // of a weight's fraction: 8 bits of a pixel and 2 of headroom are left of 32
const LONGEST = 4; // sides; what lies farther out along a sliver is cut off before resizing

/** Round to the nearest integer, halves to the even one, as Python does. */
export function round(value) {
  const low = Math.floor(value);
  const rest = value - low;
  if (rest !== 0.5) return rest < 0.5 ? low : low + 1;
  return low % 2 === 0 ? low : low + 1;
}

/** Which pixels make each of `to` pixels, and their weights as integers of BITS bits of fraction. */
function weights(from, to) {
  const scale = from / to;
  const support = Math.max(scale, 1);
  const reach = Math.ceil(support) * 2 + 1;
  const first = new Int32Array(to);
  const count = new Int32Array(to);
  const weight = new Int32Array(to * reach);
  const shares = new Float64Array(reach);
  for (let index = 0; index < to; index++) {
    const center = (index + 0.5) * scale;
    const low = Math.max(0, Math.trunc(center - support + 0.5));
    const high = Math.min(from, Math.trunc(center + support + 0.5));
    let sum = 0;
    for (let x = low; x < high; x++) {
      const distance = Math.abs((x - center + 0.5) * (1 / support));
      shares[x - low] = distance < 1 ? 1 - distance : 0;
      sum += shares[x - low];
    }
    for (let x = 0; x < high - low; x++) {
      weight[index * reach + x] = Math.trunc(0.5 + (shares[x] / sum) * 2 ** BITS);
    }
    first[index] = low;
    count[index] = high - low;
  }
  return { first, count, weight, reach };
}

/**
 * Resize a part of a picture.
 * @param {{left: number, top: number, width: number, height: number}} part of it, in whole pixels.
 * @returns a picture of width x height.
 */
export function resize(picture, part, width, height) {
  let { data, width: stride } = picture;
  let { left, top } = part;
  const half = 1 << (BITS - 1);
  if (part.width !== width) {
    const { first, count, weight, reach } = weights(part.width, width);
    const rows = new Uint8ClampedArray(width * part.height * 4);
    for (let y = 0; y < part.height; y++) {
      const line = ((top + y) * stride + left) * 4;
      for (let x = 0; x < width; x++) {
        let red = half, green = half, blue = half;
        let at = line + first[x] * 4;
        for (let k = x * reach, end = k + count[x]; k < end; k++, at += 4) {
          red += data[at] * weight[k];
          green += data[at + 1] * weight[k];
          blue += data[at + 2] * weight[k];
        }
        const to = (y * width + x) * 4;
        rows[to] = red >> BITS;
        rows[to + 1] = green >> BITS;
        rows[to + 2] = blue >> BITS;
        rows[to + 3] = 255;
      }
    }
    data = rows;
    stride = width;
    left = top = 0;
  }
  const result = new Uint8ClampedArray(width * height * 4);
  if (part.height === height) {
    for (let y = 0; y < height; y++) {
      const from = ((top + y) * stride + left) * 4;
      result.set(data.subarray(from, from + width * 4), y * width * 4);
    }
    return { width, height, data: result };
  }
  const { first, count, weight, reach } = weights(part.height, height);
  for (let y = 0; y < height; y++) {
    const start = ((top + first[y]) * stride + left) * 4;
    for (let x = 0; x < width; x++) {
      let red = half, green = half, blue = half;
      let at = start + x * 4;
      for (let k = y * reach, end = k + count[y]; k < end; k++, at += stride * 4) {
        red += data[at] * weight[k];
        green += data[at + 1] * weight[k];
        blue += data[at + 2] * weight[k];
      }
      const to = (y * width + x) * 4;
      result[to] = red >> BITS;
      result[to + 1] = green >> BITS;
      result[to + 2] = blue >> BITS;
      result[to + 3] = 255;
    }
  }
  return { width, height, data: result };
}

/**
 * The view of evaluation and prediction, high x wide. crop: the shorter side resized to high / cropShare, the center cut
 * out; squash, and where cropShare is null: all of it resized; pad: all of it, its shape kept, in the middle of black.
 */
export function prepare(picture, [high, wide], cropShare, fit = "crop") {
  if (picture.width === wide && picture.height === high) return picture;
  const all = { left: 0, top: 0, width: picture.width, height: picture.height };
  if (fit === "squash" || cropShare === null) return resize(picture, all, wide, high);
  if (fit === "pad") {
    const longer = Math.max(all.width * high, all.height * wide);
    const scaled = (side) => Math.max(1, Math.floor((2 * side * wide * high + longer) / (2 * longer)));
    return onBlack(resize(picture, all, scaled(all.width), scaled(all.height)), high, wide);
  }
  const edge = Math.max(high, round(high / cropShare));
  const part = withoutFarEnds(picture);
  let { width, height } = part;
  const shorter = Math.min(width, height);
  if (shorter !== edge) {
    const longer = Math.trunc((edge * Math.max(width, height)) / shorter);
    [width, height] = width <= height ? [edge, longer] : [longer, edge];
  }
  const whole = resize(picture, part, width, height);
  const left = round((width - wide) / 2), top = round((height - high) / 2);
  return resize(whole, { left, top, width: wide, height: high }, wide, high);
}

function onBlack(picture, high, wide) {
  const data = new Uint8ClampedArray(high * wide * 4);
  for (let at = 3; at < data.length; at += 4) data[at] = 255;
  const left = Math.floor((wide - picture.width) / 2), top = Math.floor((high - picture.height) / 2);
  const line = picture.width * 4;
  for (let y = 0; y < picture.height; y++) {
    data.set(picture.data.subarray(y * line, (y + 1) * line), ((top + y) * wide + left) * 4);
  }
  return { width: wide, height: high, data };
}

/** The whole of a picture, or the middle of a sliver (1 x 10000 pixels), which resizing would blow up to gigabytes. */
function withoutFarEnds({ width, height }) {
  const longest = LONGEST * Math.min(width, height);
  return {
    left: Math.max(0, Math.floor((width - longest) / 2)),
    top: Math.max(0, Math.floor((height - longest) / 2)),
    width: Math.min(width, longest),
    height: Math.min(height, longest),
  };
}

/** A picture as the student takes it: uint8 [3, height, width]. */
export function planes({ width, height, data }) {
  const count = width * height;
  const pixels = new Uint8Array(3 * count);
  for (let index = 0; index < count; index++) {
    pixels[index] = data[index * 4];
    pixels[count + index] = data[index * 4 + 1];
    pixels[2 * count + index] = data[index * 4 + 2];
  }
  return pixels;
}
