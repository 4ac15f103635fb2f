// From a file to pixels: upright as its EXIF data says, transparency over white, color profiles ignored, as in
// decoding.py. What a file promises is read before anything is decoded, so that no picture can fill the memory.

import { decodePng } from "./png.js";

export const MOST_BYTES = 100e6;
export const MOST_PIXELS = 64e6; // 256 MB decoded
const MOST_IN_PARTS = { bytes: 1e9, pixels: 179e6 }; // of which a browser holds what it decoded, and no copy
const WHOLE = 16e6; // pixels that are copied at once

/** What is wrong with a picture, as a sentence for the person who gave it. */
export class PictureError extends Error {}

/**
 * Decode a picture file.
 * @param {Blob} file
 * @param {{alpha?: string, white_level?: number | null}} reading what files leave open: "ignore" leaves alpha out, as data;
 *   the value that is white in gray of 16 bits.
 * @param {boolean} inParts whether a large one may be given as a `Parts`, which has no data
 * @returns {Promise<{width: number, height: number, data: Uint8ClampedArray} | Parts>} RGBA, opaque.
 * @throws {PictureError} where it is none, damaged or too large.
 */
export async function decode(file, reading = {}, inParts = false) {
  const most = inParts ? MOST_IN_PARTS : { bytes: MOST_BYTES, pixels: MOST_PIXELS };
  if (file.size === 0) throw new PictureError("This file is empty.");
  if (file.size > most.bytes) {
    throw new PictureError(`This file has ${megabytes(file.size)}; up to ${megabytes(most.bytes)} are read here.`);
  }
  let bytes = new Uint8Array(await file.arrayBuffer());
  const header = readHeader(bytes);
  if (header === null) {
    throw new PictureError("This is not a JPEG, PNG, WebP, GIF, BMP or AVIF picture.");
  }
  const { width, height } = header;
  if (!(width > 0 && height > 0)) throw new PictureError("This picture is damaged: its header promises no pixels.");
  const asData = reading.alpha === "ignore";
  const byHand = (header.depth === 16 && header.kind === 0) || (asData && header.transparent);
  const limit = (byHand ? Math.min(MOST_PIXELS, most.pixels) : most.pixels) / 1e6;
  if (width * height > limit * 1e6) {
    throw new PictureError(
      `This picture is ${width} × ${height}, ${Math.round((width * height) / 1e6)} megapixels; up to ${limit} are read here.`,
    );
  }
  if (reading.white_level && header.depth === 16 && header.kind !== 0) {
    throw new PictureError("This PNG has several bands of 16 bits, and the student takes gray ones: save it in 8 bits.");
  }
  if (byHand) {
    try {
      return await decodePng(bytes, reading.white_level ?? 65535);
    } catch {
      throw new PictureError("This PNG picture is damaged or incomplete and cannot be read.");
    }
  }
  bytes = null; // makes room
  let bitmap;
  try {
    if (header.whole === false) throw new Error("cut off");
    bitmap = await createImageBitmap(new Blob([file], { type: header.type }), {
      imageOrientation: "from-image",
      colorSpaceConversion: "none",
      premultiplyAlpha: "none",
    });
  } catch {
    const large = width * height > MOST_PIXELS ? ", or this browser has not the memory for its size" : "";
    throw new PictureError(`This ${header.name} picture is damaged or incomplete and cannot be read${large}.`);
  }
  if (inParts && width * height > WHOLE && (!asData || header.name === "PNG" || header.name === "JPEG")) {
    return new Parts(bitmap);
  }
  try {
    if (asData && header.name !== "PNG" && header.name !== "JPEG" && !isOpaque(bitmap)) {
      throw new PictureError(
        `This ${header.name} is transparent in places, and the student takes the colors beneath: save it as PNG.`,
      );
    }
    return fromBitmap(bitmap);
  } finally {
    bitmap.close();
  }
}

/** A large picture of which parts are copied where they are asked for. */
export class Parts {
  #pen = null;

  constructor(bitmap) {
    this.bitmap = bitmap;
    [this.width, this.height] = [bitmap.width, bitmap.height];
  }

  part({ left, top, width, height }) {
    const canvas = this.#pen?.canvas;
    if (canvas?.width !== width || canvas?.height !== height) {
      this.#pen = new OffscreenCanvas(width, height).getContext("2d", { alpha: false, willReadFrequently: true });
      if (this.#pen === null) throw new PictureError("This device has not enough memory for a picture of this size.");
    }
    this.#pen.fillStyle = "white";
    this.#pen.fillRect(0, 0, width, height);
    this.#pen.drawImage(this.bitmap, left, top, width, height, 0, 0, width, height);
    return { width, height, data: this.#pen.getImageData(0, 0, width, height).data };
  }

  close() {
    this.bitmap.close();
  }
}

/** The pixels of a bitmap or a frame of video, over white. */
export function fromBitmap(bitmap) {
  const { width, height } = bitmap;
  const canvas = new OffscreenCanvas(width, height);
  const pen = canvas.getContext("2d", { alpha: false, willReadFrequently: true });
  if (pen === null) throw new PictureError("This device has not enough memory for a picture of this size.");
  pen.fillStyle = "white";
  pen.fillRect(0, 0, width, height);
  pen.drawImage(bitmap, 0, 0);
  return { width, height, data: pen.getImageData(0, 0, width, height).data };
}

function isOpaque(bitmap) {
  const pen = new OffscreenCanvas(bitmap.width, bitmap.height).getContext("2d", { willReadFrequently: true });
  if (pen === null) throw new PictureError("This device has not enough memory for a picture of this size.");
  pen.drawImage(bitmap, 0, 0);
  const { data } = pen.getImageData(0, 0, bitmap.width, bitmap.height);
  for (let at = 3; at < data.length; at += 4) if (data[at] !== 255) return false;
  return true;
}

/** Whether pages read the pixels that they drew: some browsers change them, so that devices cannot be told apart. */
export function isFaithful() {
  const edge = 32;
  const drawn = new ImageData(edge, edge);
  drawn.data.forEach((_, at) => (drawn.data[at] = at % 4 === 3 ? 255 : (at * 89) % 256));
  const pen = new OffscreenCanvas(edge, edge).getContext("2d", { alpha: false, willReadFrequently: true });
  pen.putImageData(drawn, 0, 0);
  const read = pen.getImageData(0, 0, edge, edge).data;
  return read.every((value, at) => value === drawn.data[at]);
}

/**
 * What the header of a file says, or null where it is no picture of a kind that browsers read. An orientation may still
 * swap width and height. `whole` is false where the end of the file is missing, which browsers would paint over.
 */
export function readHeader(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const text = (at, length) => String.fromCharCode(...bytes.subarray(at, at + length));
  try {
    if (bytes[0] === 0xff && bytes[1] === 0xd8) return { ...jpeg(view), name: "JPEG", type: "image/jpeg" };
    if (text(1, 3) === "PNG" && text(12, 4) === "IHDR") {
      const size = { width: view.getUint32(16), height: view.getUint32(20) };
      return { ...size, name: "PNG", type: "image/png", depth: bytes[24], kind: bytes[25], ...pngChunks(view, bytes[25]) };
    }
    if (text(0, 4) === "RIFF" && text(8, 4) === "WEBP") {
      const whole = view.getUint32(4, true) + 8 <= bytes.length;
      return { ...webp(view, text(12, 4)), name: "WebP", type: "image/webp", whole };
    }
    if (text(0, 3) === "GIF") {
      return { width: view.getUint16(6, true), height: view.getUint16(8, true), name: "GIF", type: "image/gif" };
    }
    if (text(0, 2) === "BM") {
      const [width, height] = [view.getInt32(18, true), Math.abs(view.getInt32(22, true))];
      return { width, height, name: "BMP", type: "image/bmp", whole: view.getUint32(2, true) <= bytes.length };
    }
    if (text(4, 4) === "ftyp" && /avif|avis/.test(text(8, Math.min(view.getUint32(0), 64) - 8))) {
      return { ...avif(bytes, view), name: "AVIF", type: "image/avif" };
    }
  } catch (error) {
    if (!(error instanceof RangeError)) throw error; // read beyond the end
    return { width: 0, height: 0, name: "", type: "" };
  }
  return null;
}

/** Size from the first frame header; whole where an end marker follows. */
function jpeg(view) {
  for (let at = 2; ; ) {
    while (view.getUint8(at) !== 0xff) at++;
    while (view.getUint8(at) === 0xff) at++;
    const marker = view.getUint8(at++);
    const frame = marker >= 0xc0 && marker <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(marker);
    if (frame) {
      const size = { height: view.getUint16(at + 3), width: view.getUint16(at + 5) };
      return { ...size, whole: endsWithMarker(view, at) };
    }
    if (marker === 0x01 || (marker >= 0xd0 && marker <= 0xd8)) continue;
    at += view.getUint16(at);
  }
}

function endsWithMarker(view, from) {
  for (let at = view.byteLength - 2; at > from; at--) {
    if (view.getUint8(at) === 0xff && view.getUint8(at + 1) === 0xd9) return true;
  }
  return false;
}

/** Whether the end is there, and whether it says anything of transparency. */
function pngChunks(view, kind) {
  let transparent = kind === 4 || kind === 6;
  for (let at = 8; at + 8 <= view.byteLength; at += 12 + view.getUint32(at)) {
    if (view.getUint32(at + 4) === 0x74524e53) transparent = true; // tRNS
    if (view.getUint32(at + 4) === 0x49454e44) return { whole: true, transparent }; // IEND
  }
  return { whole: false, transparent };
}

function webp(view, kind) {
  if (kind === "VP8X") {
    const three = (at) => view.getUint16(at, true) + (view.getUint8(at + 2) << 16);
    return { width: three(24) + 1, height: three(27) + 1 };
  }
  if (kind === "VP8L") {
    const bits = view.getUint32(21, true);
    return { width: (bits & 0x3fff) + 1, height: ((bits >> 14) & 0x3fff) + 1 };
  }
  return { width: view.getUint16(26, true) & 0x3fff, height: view.getUint16(28, true) & 0x3fff };
}

/** The largest of the sizes (ispe boxes) within the first 64 KB. */
function avif(bytes, view) {
  let best = { width: 0, height: 0 };
  for (let at = 8; at + 16 <= Math.min(bytes.length, 65536); at++) {
    if (view.getUint32(at) !== 0x69737065) continue;
    const [width, height] = [view.getUint32(at + 8), view.getUint32(at + 12)];
    if (width * height > best.width * best.height) best = { width, height };
  }
  return best;
}

function megabytes(bytes) {
  return `${Math.round(bytes / 1e6)} MB`;
}
