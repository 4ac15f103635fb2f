// The student's own thread: decodes, resizes and answers, so that the page never waits.
//
// Messages in: {id, kind: "open", site, processor}, {id, kind: "picture", file | bitmap}, {id, kind: "measure"}.
// Out: {id, progress}: a share that is done; {id, result} or {id, error}: a sentence for people, `unexpected` set where it is a fault of ours.

import { decode, fromBitmap, isFaithful, PictureError } from "./pictures.js";
import { planes, prepare } from "./resampling.js";
import { segment, slide } from "./scenes.js";

const RUNTIMES = {
  cpu: ["./runtime/ort.wasm.bundle.min.mjs", "./runtime/ort-wasm-simd-threaded.wasm"],
  gpu: ["./runtime/ort.webgpu.bundle.min.mjs", "./runtime/ort-wasm-simd-threaded.asyncify.wasm"],
};
const MOST_THREADS = 4;
const LARGEST = 1280; // edge of a picture on the page
let site = null;
let runtime = null;
let students = []; // [{name, session, input}] in the order of site.models

const kinds = { open, picture, measure };

onmessage = async ({ data: { id, kind, ...rest } }) => {
  try {
    const result = await kinds[kind](rest, (progress) => postMessage({ id, progress }));
    postMessage({ id, result }, result.shown ? [result.shown] : []);
  } catch (error) {
    const ours = !(error instanceof PictureError);
    postMessage({ id, error: ours ? String(error?.message ?? error) : error.message, unexpected: ours });
  }
};

/** Load the runtime and every export of the student. */
async function open({ site: description, processor }) {
  site = description;
  const gpu = processor === "gpu";
  const [script, binary] = RUNTIMES[gpu ? "gpu" : "cpu"];
  runtime = await import(script);
  const cores = self.crossOriginIsolated ? navigator.hardwareConcurrency || 1 : 1;
  const threads = Math.min(MOST_THREADS, Math.ceil(cores / 2)); // more do not speed small networks up
  runtime.env.wasm.numThreads = threads;
  runtime.env.wasm.wasmPaths = { wasm: new URL(binary, import.meta.url).href };
  runtime.env.logLevel = "error";
  students = [];
  for (const model of site.models) {
    const response = await fetch(model.file);
    if (!response.ok) throw new Error(`${model.file} is missing from this site (${response.status}).`);
    const bytes = new Uint8Array(await response.arrayBuffer());
    const session = await runtime.InferenceSession.create(bytes, {
      executionProviders: gpu ? ["webgpu", "wasm"] : ["wasm"],
      graphOptimizationLevel: "all",
      logSeverityLevel: 3, // errors; that shapes are computed on the CPU is none
    });
    students.push({ name: model.name, session, input: session.inputNames[0], promise: model.promise });
  }
  return { threads, faithful: isFaithful(), times: await measure({ budget: 400 }) };
}

/** Every export's answer to one picture. */
async function picture({ file, bitmap }, progress) {
  const started = performance.now();
  const inParts = Boolean(site.input.sliding) && site.input.reduction === 1;
  const seen = file ? await decode(file, site.input, inParts) : fromBitmap(bitmap);
  bitmap?.close();
  const decoded = performance.now();
  const answers = [];
  try {
    for (const student of students) answers.push(await answerOf(student, seen, (share) => progress((answers.length + share) / students.length)));
    const { width, height } = seen;
    return { width, height, decoding: decoded - started, shown: await reduced(seen), answers };
  } finally {
    seen.close?.();
  }
}

/** What the page shows: the picture that the student saw, no larger than a screen. */
async function reduced({ width, height, data, bitmap }) {
  const scale = Math.min(1, LARGEST / Math.max(width, height));
  return createImageBitmap(bitmap ?? new ImageData(data, width, height), {
    resizeWidth: Math.max(1, Math.round(width * scale)),
    resizeHeight: Math.max(1, Math.round(height * scale)),
    resizeQuality: "medium",
  });
}

async function answerOf(student, seen, progress) {
  if (site.dense) {
    const least = site.sigmoid ? site.classes.map((_, at) => logit(site.thresholds?.[at] ?? 0.5)) : null;
    const answer = (pixels, size) => ask(student, pixels, size);
    if (site.input.sliding) return slide(seen, site.input, answer, least, student.promise, sparsely(progress));
    return segment(seen, site.input, answer, least, student.promise);
  }
  const view = prepare(seen, site.input.size, site.input.crop_share, site.input.fit);
  const started = performance.now();
  const { data } = await ask(student, planes(view));
  const milliseconds = performance.now() - started;
  if (site.sigmoid) return { probabilities: sigmoids(data), milliseconds };
  const { promise } = student;
  const probabilities = shares(data, site.outputs, promise?.temperature ?? 1);
  return { probabilities, unsure: promise ? doubt(probabilities, promise) : null, milliseconds };
}

/** Tell ten times a second at most. */
function sparsely(tell) {
  let last = performance.now();
  return (share) => {
    if (performance.now() - last < 100) return;
    last = performance.now();
    tell(share);
  };
}

/** The logits of pixels uint8 [3, height, width]. */
async function ask({ session, input }, pixels, [height, width] = site.input.size) {
  const given = new runtime.Tensor("uint8", pixels, [1, 3, height, width]);
  const outputs = await session.run({ [input]: given });
  const { data, dims } = outputs[session.outputNames[0]];
  return { data, dims };
}

/**
 * Median milliseconds a picture of every export, in turn so that a noisy moment hits all alike. Before that some that do
 * not count: browsers compile WebAssembly twice, first to be quick to start, then for speed.
 */
async function measure({ budget }) {
  const [height, width] = site.input.size;
  const pixels = new Uint8Array(3 * height * width).map((_, index) => (index * 37) % 251);
  const rounds = async (milliseconds, least) => {
    const times = students.map(() => []);
    const until = performance.now() + milliseconds;
    do {
      for (const [index, student] of students.entries()) {
        const started = performance.now();
        await ask(student, pixels);
        times[index].push(performance.now() - started);
      }
    } while (performance.now() < until || times[0].length < least);
    return times.map((list) => list.sort((a, b) => a - b)[list.length >> 1]);
  };
  await rounds(budget / 2, 3);
  return rounds(budget, 5);
}

/** Probabilities of what the network answers: logits, or already these. */
export function shares(answer, outputs, temperature = 1) {
  if (outputs === "probabilities") return Float64Array.from(answer);
  return softmax(Float64Array.from(answer, (value) => value / temperature));
}

/** Of a picture that is not answered, the indices of the classes one of which it is; null where it is answered. */
export function doubt(probabilities, { threshold, least }) {
  const order = [...probabilities.keys()].sort((a, b) => probabilities[b] - probabilities[a]);
  if (probabilities[order[0]] >= threshold) return null;
  return order.filter((at, rank) => rank === 0 || probabilities[at] >= least);
}

/** Probabilities of labels that are questions of their own. */
export function sigmoids(logits) {
  return Float64Array.from(logits, (value) => 1 / (1 + Math.exp(-value)));
}

function logit(share) {
  return Math.fround(Math.log(share / (1 - share)));  // in float32, as logits are
}

function softmax(logits) {
  const largest = logits.reduce((a, b) => Math.max(a, b), -Infinity);
  const shares = Float64Array.from(logits, (value) => Math.exp(value - largest));
  const sum = shares.reduce((a, b) => a + b, 0);
  return shares.map((share) => share / sum);
}
