// PNG files by hand, for what browsers do not give: 16 bits of gray, and the colors beneath transparency.

const CHANNELS = { 0: 1, 2: 3, 3: 1, 4: 2, 6: 4 }; // by the kind that the header names: gray, RGB, palette, with alpha
const ADAM7 = [[0, 0, 8, 8], [4, 0, 8, 8], [0, 4, 4, 8], [2, 0, 4, 4], [0, 2, 2, 4], [1, 0, 2, 2], [0, 1, 1, 2]];

/**
 * Decode a PNG as decoding.py does, its alpha left out.
 * @param {Uint8Array} bytes of the whole file
 * @param {number} white the value that is white in gray of 16 bits
 * @returns {Promise<{width: number, height: number, data: Uint8ClampedArray}>} RGBA, opaque, upright.
 * @throws {Error} where it is damaged.
 */
export async function decodePng(bytes, white = 65535) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const width = view.getUint32(16), height = view.getUint32(20);
  const [depth, kind, interlaced] = [bytes[24], bytes[25], bytes[28]];
  const channels = CHANNELS[kind];
  if (!channels || ![1, 2, 4, 8, 16].includes(depth) || interlaced > 1) throw new Error("no PNG");
  let palette = new Uint8Array(0), orientation = 1;
  const parts = [];
  for (const { type, content } of chunks(bytes, view)) {
    if (type === "IDAT") parts.push(content);
    if (type === "PLTE") palette = content;
    if (type === "eXIf") orientation = orientationOf(content);
  }
  const passes = (interlaced ? ADAM7 : [[0, 0, 1, 1]])
    .map(([left, top, across, down]) => {
      const columns = Math.ceil((width - left) / across), rows = Math.ceil((height - top) / down);
      return { left, top, across, down, columns, rows, line: Math.ceil((columns * channels * depth) / 8) };
    })
    .filter(({ columns, rows }) => columns > 0 && rows > 0);
  const lines = await inflate(parts, passes.reduce((sum, { rows, line }) => sum + rows * (line + 1), 0));
  const data = new Uint8ClampedArray(width * height * 4).fill(255);
  const put = putter({ data, depth, kind, channels, palette, white });
  let at = 0;
  for (const { left, top, across, down, columns, rows, line } of passes) {
    let above = new Uint8Array(line);
    for (let row = 0; row < rows; row++, at += line + 1) {
      const current = lines.subarray(at + 1, at + 1 + line);
      unfilter(lines[at], current, above, Math.max(1, (channels * depth) >> 3));
      for (let x = 0; x < columns; x++) put(current, x, ((top + row * down) * width + left + x * across) * 4);
      above = current;
    }
  }
  return turned({ width, height, data }, orientation);
}

/** The chunks up to IEND. Throws where one is damaged or missing. */
function* chunks(bytes, view) {
  for (let at = 8; ; ) {
    const length = view.getUint32(at);
    const type = String.fromCharCode(...bytes.subarray(at + 4, at + 8));
    if (type === "IEND") return;
    if (checksum(bytes.subarray(at + 4, at + 8 + length)) !== view.getUint32(at + 8 + length)) throw new Error("damaged");
    yield { type, content: bytes.subarray(at + 8, at + 8 + length) };
    at += 12 + length;
  }
}

const TABLE = Int32Array.from({ length: 256 }, (_, value) => {
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? (value >>> 1) ^ 0xedb88320 : value >>> 1;
  return value;
});

function checksum(bytes) {
  let sum = -1;
  for (const byte of bytes) sum = TABLE[(sum ^ byte) & 255] ^ (sum >>> 8);
  return (sum ^ -1) >>> 0;
}

/** Exactly `length` bytes of a zlib stream. */
async function inflate(parts, length) {
  const reader = new Blob(parts).stream().pipeThrough(new DecompressionStream("deflate")).getReader();
  const whole = new Uint8Array(length);
  let at = 0;
  while (at < length) {
    const { done, value } = await reader.read();
    if (done) throw new Error("cut off");
    whole.set(value.subarray(0, length - at), at);
    at += value.length;
  }
  reader.cancel().catch(() => {});
  return whole;
}

/** Undo the filter of a line, in place. */
function unfilter(filter, line, above, step) {
  for (let x = 0; x < line.length; x++) {
    const left = x >= step ? line[x - step] : 0, up = above[x];
    if (filter === 1) line[x] += left;
    else if (filter === 2) line[x] += up;
    else if (filter === 3) line[x] += (left + up) >> 1;
    else if (filter === 4) {
      const corner = x >= step ? above[x - step] : 0;
      const near = Math.abs(up - corner), far = Math.abs(left - corner), both = Math.abs(left + up - 2 * corner);
      line[x] += near <= far && near <= both ? left : far <= both ? up : corner;
    } else if (filter !== 0) throw new Error("damaged");
  }
}

/** A function that writes pixel `x` of a line at a place of `data`. */
function putter({ data, depth, kind, channels, palette, white }) {
  const most = 2 ** Math.min(depth, 8) - 1;
  const sample = (line, index) => {
    if (depth === 8) return line[index];
    if (depth === 16) return (line[2 * index] << 8) | line[2 * index + 1];
    const bit = index * depth;
    return (line[bit >> 3] >> (8 - depth - (bit & 7))) & most;
  };
  const level = (value) => {
    if (depth < 16) return (value * 255) / most;
    if (kind !== 0) return value >> 8;
    return Math.floor((Math.min(value, white) * 255 + (white >> 1)) / white);
  };
  return (line, x, to) => {
    for (let color = 0; color < 3; color++) {
      if (kind === 3) data[to + color] = palette[3 * sample(line, x) + color] ?? 0;
      else data[to + color] = level(sample(line, x * channels + (channels > 2 ? color : 0)));
    }
  };
}

/** The orientation that EXIF data name, 1 to 8. */
function orientationOf(exif) {
  const view = new DataView(exif.buffer, exif.byteOffset, exif.byteLength);
  try {
    const little = view.getUint16(0) === 0x4949;
    const first = view.getUint32(4, little);
    for (let entry = 0; entry < view.getUint16(first, little); entry++) {
      const at = first + 2 + 12 * entry;
      if (view.getUint16(at, little) === 0x0112) {
        const found = view.getUint16(at + 8, little);
        return found >= 1 && found <= 8 ? found : 1;
      }
    }
  } catch (error) {
    if (!(error instanceof RangeError)) throw error; // damaged metadata say nothing about the pixels
  }
  return 1;
}

/** A picture upright: orientations 5 to 8 swap its sides. */
function turned(picture, orientation) {
  if (orientation === 1) return picture;
  const swapped = orientation > 4;
  const { width, height } = picture;
  const [wide, high] = swapped ? [height, width] : [width, height];
  const from = new Uint32Array(picture.data.buffer), to = new Uint32Array(wide * high);
  const right = [2, 3, 7, 8].includes(orientation), bottom = [3, 4, 6, 7].includes(orientation);
  for (let y = 0; y < high; y++) {
    for (let x = 0; x < wide; x++) {
      const column = swapped ? y : x, row = swapped ? x : y;
      to[y * wide + x] = from[(bottom ? height - 1 - row : row) * width + (right ? width - 1 - column : column)];
    }
  }
  return { width: wide, height: high, data: new Uint8ClampedArray(to.buffer) };
}
