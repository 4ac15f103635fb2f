// The page: takes pictures by file, drop, paste, sample or camera, hands them to the engine and shows what it says.

import { Camera } from "./camera.js";
import { Engine } from "./engine.js";
import { followServiceWorker } from "./offline.js";
import { Results } from "./results.js";

const at = (id) => document.getElementById(id);
const state = { engine: null, results: null, camera: null, turn: 0 };

start().catch((error) => say(`This page could not start: ${error.message}`));

async function start() {
  const response = await fetch("site.json");
  if (!response.ok) throw new Error(`site.json is missing from this site (${response.status}).`);
  const site = await response.json();
  document.title = `Try ${short(site.name)}`;
  at("name").replaceChildren(named(short(site.name, 120)));
  at("facts").replaceChildren(...site.facts.flatMap((fact, index) => [index ? " · " : "", named(fact)]));
  document.body.classList.add(site.dense ? "segmentation" : site.task);
  at("drop").classList.add("empty");
  state.results = new Results(site);
  showSamples(site);
  takePictures();
  state.engine = new Engine(site);
  state.camera = new Camera(at("video"), (bitmap) => answer({ bitmap }, { live: true }));
  await offerProcessors();
  await open("cpu");
  followServiceWorker(at("offline"));
}

/** Load the runtime and the student; the page says so meanwhile. */
async function open(processor) {
  busy("Loading the network …");
  const choice = at("processor");
  choice.disabled = at("measure").disabled = true;
  try {
    const { threads, times, faithful } = await state.engine.open(processor);
    const cores = threads > 1 ? `${threads} threads` : "1 thread";
    at("processor-note").textContent = processor === "gpu" ? "WebGPU" : `WebAssembly, ${cores}`;
    state.results.times(times);
    at("altered").hidden = faithful;
    document.body.dataset.ready = processor;
  } catch (error) {
    if (processor !== "gpu") throw new Error(`The network could not be loaded. ${error.message}`);
    say(`The GPU cannot run this network here, so the CPU does. ${error.message}`);
    choice.value = "cpu";
    await open("cpu");
  } finally {
    busy(null);
    choice.disabled = choice.length === 1;
    at("measure").disabled = false;
  }
}

/** The GPU is a choice, not the default: small networks are often faster without, and its runtime is a large download. */
async function offerProcessors() {
  const adapter = await navigator.gpu?.requestAdapter().catch(() => null);
  const choice = at("processor");
  if (adapter) choice.add(new Option("GPU", "gpu"));
  else choice.classList.add("single");
  choice.addEventListener("change", () => {
    say(null);
    open(choice.value).catch((error) => say(error.message));
  });
  at("measure").addEventListener("click", async () => {
    busy("Measuring …");
    at("measure").disabled = true;
    try {
      state.results.times(await state.engine.measure());
    } catch (error) {
      say(error.message);
    } finally {
      busy(null);
      at("measure").disabled = false;
    }
  });
}

function takePictures() {
  const file = at("file");
  at("choose").addEventListener("click", () => file.click());
  file.addEventListener("change", () => {
    if (file.files.length) given(file.files[0]);
    file.value = "";
  });
  document.addEventListener("paste", (event) => {
    const [pasted] = event.clipboardData.files;
    if (pasted) given(pasted);
  });
  const over = (event) => {
    event.preventDefault();
    at("drop").classList.toggle("over", event.type === "dragover");
  };
  document.addEventListener("dragover", over);
  document.addEventListener("dragleave", over);
  document.addEventListener("drop", (event) => {
    over(event);
    const [dropped] = event.dataTransfer.files;
    if (dropped) given(dropped);
    else say("That was not a picture file. Save the picture first, then drop the file here.");
  });
  at("camera").addEventListener("click", toggleCamera);
  at("turn").addEventListener("click", () => state.camera.turn().catch(cameraFailed));
}

async function toggleCamera() {
  say(null);
  if (state.camera.running) {
    state.camera.stop();
  } else {
    press(null);
    try {
      await state.camera.start();
    } catch (error) {
      cameraFailed(error);
    }
  }
  showCamera();
}

function cameraFailed(error) {
  state.camera.stop();
  say(error.message);
  showCamera();
}

function showCamera() {
  const { running, several } = state.camera;
  at("camera").textContent = running ? "Hold this picture" : "Use the camera";
  at("turn").hidden = !(running && several);
  at("video").hidden = !running;
  if (running) {
    at("invitation").hidden = at("shown").hidden = true;
    at("drop").classList.remove("empty");
  } else if (state.results.any) { // a frame that is held, or what was there before
    at("shown").hidden = false;
  } else {
    at("invitation").hidden = false;
    at("drop").classList.add("empty");
  }
}

/** A file from the person at the page. */
function given(file, sample = null) {
  if (state.camera?.running) {
    state.camera.stop();
    showCamera();
  }
  press(sample);
  return answer({ file });
}

async function answer(picture, { live = false } = {}) {
  if (!live) say(null);
  if (!document.body.dataset.ready) {
    say("The network is still loading; try again in a moment.");
    return;
  }
  const turn = ++state.turn;
  if (!live) busy("Looking …");
  try {
    const told = (share) => turn === state.turn && !live && busy(`Looking … ${Math.floor(100 * share)} %`);
    const result = await state.engine.picture(picture, told);
    if (turn !== state.turn || (live && !state.camera.running && state.results.any)) return;
    state.results.show(result, live);
    at("invitation").hidden = true;
    at("shown").hidden = live && state.camera.running;
    at("drop").classList.remove("empty");
  } catch (error) {
    if (turn === state.turn) say(error.unexpected ? `This picture could not be answered: ${error.message}` : error.message);
  } finally {
    if (turn === state.turn) busy(null);
  }
}

function showSamples({ samples, samples_note: note }) {
  at("samples-block").hidden = samples.length === 0;
  at("samples-note").textContent = note;
  at("samples").replaceChildren(
    ...samples.map((sample, index) => {
      const image = new Image();
      image.src = sample.file;
      image.alt = `Sample ${index + 1}`;
      image.classList.toggle("tiny", Math.max(sample.width, sample.height) < 100);
      const button = document.createElement("button");
      button.type = "button";
      button.setAttribute("aria-pressed", "false");
      button.append(image);
      button.addEventListener("click", async () => {
        try {
          const response = await fetch(sample.file);
          if (!response.ok) throw new Error();
          await given(await response.blob(), button);
        } catch {
          say("This sample is missing from the site.");
        }
      });
      const item = document.createElement("li");
      item.append(button);
      return item;
    }),
  );
}

function press(button) {
  for (const other of at("samples").querySelectorAll("button")) other.setAttribute("aria-pressed", String(other === button));
}

function say(text) {
  at("message").hidden = text === null;
  at("message").textContent = text ?? "";
}

function busy(text) {
  at("busy").hidden = text === null;
  at("busy-text").textContent = text ?? "";
}

function named(text) {
  const span = document.createElement("span");
  span.className = "name";
  span.dir = "auto";
  span.textContent = text;
  return span;
}

function short(text, length = 60) {
  const letters = [...text];
  return letters.length > length ? `${letters.slice(0, length - 1).join("")}…` : text;
}
