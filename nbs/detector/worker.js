// The network's own thread: it loads ONNX Runtime and the weights, letterboxes, runs, decodes and suppresses. Each request gets one
// answer with its id; a failure is answered with one sentence.
import {decode, evaluate, letterbox, suppress, unletterbox} from './core.js';

const FLOOR = 0.01;  // candidates that score below it are forgotten; the slider begins there
const MOST_PIXELS = 16_000_000;  // what every browser's canvas can hold
const BUILD = new URL('build/', import.meta.url);
let site, runtime, session, network, current;
let examples = [];

async function load(file, progress) {
  const response = await fetch(new URL(file, BUILD));
  if (!response.ok) throw new Error(`${file} is not there (${response.status}).`);
  const parts = [];
  const reader = response.body.getReader();
  for (;;) {
    const {done, value} = await reader.read();
    if (done) break;
    parts.push(value);
    progress(value.length);
  }
  return new Uint8Array(await new Blob(parts).arrayBuffer());
}

async function unpacked(bytes) {
  if (bytes[0] !== 0x1f || bytes[1] !== 0x8b) return bytes;  // a server has unpacked it already
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream('gzip'));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// Load a network, and the runtime with the first of them.
async function open({description, name, bits}) {
  site = description;
  const started = performance.now();
  const file = site.networks[name].files[bits];
  const total = file.bytes + (runtime ? 0 : site.runtime.bytes);
  let bytes = 0;
  const progress = n => { bytes += n; postMessage({progress: bytes, total}); };
  const weights = load(file.file, progress);
  if (!runtime) {
    const [script, binary] = await Promise.all([import(new URL(site.runtime.script, BUILD)), load(site.runtime.binary, progress)]);
    script.env.wasm.numThreads = 1;  // more would need headers that static hosts do not send
    script.env.wasm.wasmBinary = await unpacked(binary);
    runtime = script;
  }
  const options = {executionProviders: ['wasm'], graphOptimizationLevel: 'all'};
  const opened = await runtime.InferenceSession.create(await weights, options);
  if (session) await session.release();
  [session, network, current, examples] = [opened, site.networks[name], null, []];
  return {bytes, seconds: (performance.now() - started) / 1000};
}

// Pixels as yolov3_nb.data.read_image has them: upright, colours as stored, white where it is transparent.
async function read(blob) {
  let bitmap;
  try { bitmap = await createImageBitmap(blob, {imageOrientation: 'from-image', colorSpaceConversion: 'none'}); }
  catch { throw new Error('This is not an image that the browser can read: take a JPEG, PNG, WebP or GIF.'); }
  const shrink = Math.min(1, Math.sqrt(MOST_PIXELS / (bitmap.width * bitmap.height)));
  const [w, h] = [bitmap.width, bitmap.height].map(side => Math.max(1, Math.round(side * shrink)));
  const context = new OffscreenCanvas(w, h).getContext('2d', {willReadFrequently: true});
  context.fillStyle = '#fff';
  context.fillRect(0, 0, w, h);
  context.drawImage(bitmap, 0, 0, w, h);
  const size = {width: bitmap.width, height: bitmap.height};
  bitmap.close();
  return {image: context.getImageData(0, 0, w, h), ...size};
}

async function look(blob) {
  const times = [performance.now()];
  const {image, width, height} = await read(blob);
  times.push(performance.now());
  const {input, view} = letterbox(image, network.size);
  times.push(performance.now());
  const images = new runtime.Tensor('float32', input, [1, 3, network.size, network.size]);
  const raw = await session.run({images});
  times.push(performance.now());
  const found = decode(['stride32', 'stride16', 'stride8'].map(name => raw[name].data), network, FLOOR);
  for (const c of found.candidates) c.box = unletterbox(c.square, height, width, network.size);
  times.push(performance.now());
  const ms = Object.fromEntries(['read', 'letterbox', 'network', 'decode'].map((name, i) => [name, times[i + 1] - times[i]]));
  return {...found, view, width, height, ms};
}

async function detect({blob, number}) {
  current = {...await look(blob), number};
  const {view, width, height, grids, ms} = current;
  return {view, width, height, grids, ms};
}

// One of the examples whose boxes are known, for the curve.
async function example({blob, truth}) {
  const {candidates} = await look(blob);
  examples.push({candidates, truth});
  return {count: examples.length};
}

// What stays at these thresholds, and how good that is over the examples seen so far.
function thresholds({score, iou}) {
  const above = list => list.filter(c => c.score > score);
  const kept = current ? above(suppress(current.candidates, iou)) : [];
  const detections = kept.map(({box, score, label, scale, anchor, row, column, square}) => ({box, score, label, scale, anchor, row, column, square}));
  const found = {detections, number: current?.number};
  if (!examples.length) return found;
  const all = examples.map(({candidates, truth}) => ({truth, detections: suppress(candidates, iou)}));
  const cut = all.map(image => ({...image, detections: above(image.detections)}));
  const classes = network.classes.length;
  return {...found, all: evaluate(all, classes), cut: evaluate(cut, classes)};
}

const ANSWERS = {open, detect, example, thresholds};
let queue = Promise.resolve();  // one after the other: a session runs one image at a time
onmessage = ({data: {id, kind, ...request}}) => {
  queue = queue.then(async () => {
    try { postMessage({id, answer: await ANSWERS[kind](request)}); }
    catch (e) { postMessage({id, error: e.message || String(e)}); }
  });
};
