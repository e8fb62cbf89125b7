// The page "The detector": it takes images in, asks the worker, and draws what comes back. All computing is in worker.js.
import {STRIDES, letterboxGeometry, unletterbox} from './core.js';

const BASE = new URL('.', import.meta.url);
const $ = selector => document.querySelector(`.detector ${selector}`);
const root = document.querySelector('#detector-run');
const make = (tag, properties = {}, ...children) => {
  const e = Object.assign(document.createElement(tag), properties);
  e.append(...children);
  return e;
};
const svg = (tag, attributes, parent) => {
  const e = document.createElementNS('http://www.w3.org/2000/svg', tag);
  for (const [k, v] of Object.entries(attributes)) e.setAttribute(k, v);
  return parent.appendChild(e);
};
const percent = share => `${100 * share}%`;
const megabytes = bytes => (bytes / 1e6).toFixed(1);
const seconds = s => s < 1 ? `${Math.round(s * 1000)}\u00a0ms` : `${s.toFixed(1)}\u00a0s`;  // never parted from its unit
const plural = (n, one, many = `${one}s`) => `${n} ${n === 1 ? one : many}`;

let site, network, shown, first, stream, loaded;
let images = 0;  // so many have been given; only the last of them is shown
let refused = 0;  // the newest image that could not be read
const ui = {state: $('.detector-state'), stage: $('.detector-stage'), network: $('.network'), bits: $('.bits'), known: $('.known'),
            rows: $('.detections tbody'), examples: $('.detector-examples')};
ui.image = make('img', {alt: 'No image yet'});
ui.stage.prepend(ui.image);

function say(state, text) {
  root.dataset.state = state;
  ui.state.textContent = text;
}

// ---- the worker: one promise a request ----

const worker = new Worker(new URL('worker.js', BASE), {type: 'module'});
const waiting = new Map();
let requests = 0;

function ask(kind, request = {}) {
  return new Promise((resolve, reject) => {
    waiting.set(++requests, {resolve, reject});
    worker.postMessage({id: requests, kind, ...request});
  });
}

worker.onmessage = ({data}) => {
  if (data.progress) {
    say('loading', `Loading the network: ${megabytes(data.progress)} of ${megabytes(data.total)} MB`);
    return;
  }
  const {resolve, reject} = waiting.get(data.id);
  waiting.delete(data.id);
  if (data.error) reject(new Error(data.error));
  else resolve(data.answer);
};
worker.onerror = e => say('error', `This browser cannot run the detector (${e.message || 'it starts no module worker'}).`);

// ---- colours ----

const color = label => site.colors[label % site.colors.length];
function ink(label) {  // black or white, whichever is easier to read on the class's colour
  const [r, g, b] = [1, 3, 5].map(i => parseInt(color(label).slice(i, i + 2), 16) / 255)
    .map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
  return .2126 * r + .7152 * g + .0722 * b > .179 ? '#000' : '#fff';
}

// ---- the image with its boxes ----

function frame(box, kind, tint) {
  const [x1, y1, x2, y2] = box;
  const {width, height} = shown;
  const e = make('div', {className: kind});
  e.style.cssText = `left:${percent(x1 / width)};top:${percent(y1 / height)};width:${percent((x2 - x1) / width)};` +
    `height:${percent((y2 - y1) / height)};--tint:${tint || '#fff'}`;
  return $('.boxes').appendChild(e);
}

function tag(e, {label, score, box}) {
  const t = e.appendChild(make('span', {className: 'tag', textContent: `${network.classes[label]} ${score.toFixed(2)}`}));
  t.style.color = ink(label);
  if (box[1] / shown.height * ui.stage.clientHeight < 22) t.classList.add('inside');
  if (box[0] / shown.width > .72) t.classList.add('right');
}

// The cell and the anchor that made a box, for the row that is pointed at or focused.
function answer(d) {
  for (const e of ui.stage.querySelectorAll('.cell, .anchor')) e.remove();
  for (const e of ui.stage.querySelectorAll('.box')) e.classList.toggle('dim', Boolean(d) && e !== d.element);
  if (!d) return;
  const stride = STRIDES[d.scale];
  const back = square => unletterbox(square, shown.height, shown.width, network.size);
  frame(back([d.column * stride, d.row * stride, (d.column + 1) * stride, (d.row + 1) * stride]), 'cell', color(d.label));
  const [w, h] = network.anchors[d.scale][d.anchor];
  const [x, y] = [(d.square[0] + d.square[2]) / 2, (d.square[1] + d.square[3]) / 2];
  frame(back([x - w / 2, y - h / 2, x + w / 2, y + h / 2]), 'anchor', color(d.label));
}

// A tag that lies on an earlier one ends where its box ends, moves into its box, or under it.
function spread() {
  const placed = [];
  const meets = (a, b) => a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
  for (const t of ui.stage.querySelectorAll('.tag')) {
    const usual = t.className;
    const outside = usual.replace(' inside', '');
    for (const place of [usual, `${usual} right`, `${usual} inside`, `${outside} foot`, `${outside} foot right`, usual]) {
      t.className = place;
      if (!placed.some(rect => meets(rect, t.getBoundingClientRect()))) break;
    }
    placed.push(t.getBoundingClientRect());
  }
}

function drawBoxes(detections) {
  $('.boxes').replaceChildren();
  if (shown.truth && ui.known.checked) for (const box of shown.truth.boxes) frame(box, 'truth');
  ui.rows.replaceChildren();
  for (const d of detections) {
    d.element = frame(d.box, 'box', color(d.label));
    tag(d.element, d);
    const [w, h] = network.anchors[d.scale][d.anchor].map(Math.round);
    const button = make('button', {type: 'button', textContent: network.classes[d.label]});
    button.style.setProperty('--tint', color(d.label));
    const row = make('tr', {}, make('td', {}, button), ...[d.score.toFixed(2), `${STRIDES[d.scale]}`, `${d.row}, ${d.column}`, `${w} × ${h}`]
      .map(textContent => make('td', {textContent})));
    for (const event of ['pointerenter', 'focusin']) row.addEventListener(event, () => answer(d));
    for (const event of ['pointerleave', 'focusout']) row.addEventListener(event, () => answer(null));
    d.element.addEventListener('pointerenter', () => { answer(d); row.classList.add('pointed'); });
    d.element.addEventListener('pointerleave', () => { answer(null); row.classList.remove('pointed'); });
    ui.rows.append(row);
  }
  spread();
  $('.detections').hidden = !detections.length;
  $('.nothing').hidden = Boolean(detections.length);
}

// ---- the three grids ----

function drawGrid(panel, scale, detections) {
  const canvas = panel.querySelector('canvas');
  const context = canvas.getContext('2d');
  const {size} = network;
  const n = size / STRIDES[scale];
  const cell = canvas.width / n;
  const own = detections.filter(d => d.scale === scale);
  const input = new OffscreenCanvas(size, size);
  input.getContext('2d').putImageData(new ImageData(shown.view, size, size), 0, 0);
  context.drawImage(input, 0, 0, canvas.width, canvas.height);
  context.fillStyle = 'rgba(0, 0, 0, .45)';
  context.fillRect(0, 0, canvas.width, canvas.height);
  shown.grids[scale].forEach((sure, i) => {
    context.fillStyle = `rgba(240, 228, 66, ${.75 * sure})`;
    context.fillRect(i % n * cell, Math.floor(i / n) * cell, cell, cell);
  });
  context.strokeStyle = 'rgba(255, 255, 255, .35)';
  context.lineWidth = 1;
  context.beginPath();
  for (let i = 0; i <= n; i++) {
    context.moveTo(i * cell, 0); context.lineTo(i * cell, canvas.height);
    context.moveTo(0, i * cell); context.lineTo(canvas.width, i * cell);
  }
  context.stroke();
  for (const d of own) {
    for (const [style, width] of [['#fff', 7], [color(d.label), 4]]) {
      context.strokeStyle = style;
      context.lineWidth = width;
      context.strokeRect(d.column * cell, d.row * cell, cell, cell);
    }
  }
  const text = `Stride ${STRIDES[scale]}: ${n} × ${n} cells, ` + (own.length ? `${plural(own.length, 'box', 'boxes')} kept` : 'no box kept');
  panel.querySelector('figcaption').textContent = text;
  canvas.setAttribute('aria-label', `${text}${own.length ? `: ${own.map(d => `${network.classes[d.label]} at row ${d.row}, column ${d.column}`).join('; ')}` : ''}`);
}

// ---- the curve of the examples ----

function drawCurve({all, cut}) {
  const stage = $('.detector-curve svg');
  stage.replaceChildren();
  const [x, y] = [r => 44 + 296 * r, p => 226 - 206 * p];
  for (const v of [0, .25, .5, .75, 1]) {
    svg('line', {x1: x(0), x2: x(1), y1: y(v), y2: y(v), class: 'grid'}, stage);
    svg('line', {x1: x(v), x2: x(v), y1: y(0), y2: y(1), class: 'grid'}, stage);
    svg('text', {x: x(0) - 6, y: y(v) + 4, 'text-anchor': 'end'}, stage).textContent = v;
    svg('text', {x: x(v), y: y(0) + 16, 'text-anchor': 'middle'}, stage).textContent = v;
  }
  svg('text', {x: x(.5), y: 262, 'text-anchor': 'middle'}, stage).textContent = 'recall';
  svg('text', {x: 0, y: 0, 'text-anchor': 'middle', transform: `translate(11 ${y(.5)}) rotate(-90)`}, stage).textContent = 'precision';
  const path = curve => curve.map((p, i) => `${i ? 'L' : 'M'}${x(p.recall).toFixed(1)} ${y(p.precision).toFixed(1)}`).join('') || 'M0 0';
  svg('path', {d: path(all.curve), class: 'all'}, stage);
  svg('path', {d: path(cut.curve), class: 'cut'}, stage);
  const end = cut.curve.at(-1);
  if (end) svg('circle', {cx: x(end.recall), cy: y(end.precision), r: 6, class: 'end'}, stage);
  const figures = {map: cut.map, precision: end ? end.precision : NaN, recall: end ? end.recall : 0, whole: all.map};
  for (const [name, value] of Object.entries(figures)) $(`.figure-${name}`).textContent = Number.isNaN(value) ? '–' : value.toFixed(2);
  $('.detector-curve figcaption').textContent = `${plural(all.objects, 'object')} in ${plural(all.images, 'test image')} of ToyVOC, all classes in one curve. ` +
    'Bold: down to the score that you chose; thin: further down.';
  stage.setAttribute('aria-label', `Precision ${$('.figure-precision').textContent} at recall ${$('.figure-recall').textContent}; mAP ${$('.figure-map').textContent}`);
  root.dataset.curve = JSON.stringify(figures);
}

// ---- thresholds: two pairs of sliders, beside the image and beside the curve, that move together ----

const sliders = name => document.querySelectorAll(`.detector input.${name}`);
const threshold = name => Number(sliders(name)[0].value);

function slide(name, value) {
  for (const slider of sliders(name)) {
    slider.value = value;
    slider.parentElement.querySelector('output').textContent = Number(value).toFixed(2);
  }
}

function summary(detections) {
  if (!detections.length) return 'Nothing scores above the threshold.';
  const names = detections.slice(0, 5).map(d => `${network.classes[d.label]} ${d.score.toFixed(2)}`);
  return `Found ${plural(detections.length, 'object')}: ${names.join(', ')}${detections.length > 5 ? ' …' : '.'}`;
}

async function refresh() {
  const now = {score: threshold('score'), iou: threshold('iou')};
  const found = await ask('thresholds', now);
  if (shown && shown.number === found.number) {  // else another image is on its way
    drawBoxes(found.detections);
    document.querySelectorAll('.detector-grids figure').forEach((panel, scale) => drawGrid(panel, scale, found.detections));
    root.dataset.image = shown.name;
    root.dataset.detections = JSON.stringify(found.detections.map(({element, ...d}) => d));
    if (refused !== images) say('ready', `${summary(found.detections)} The network took ${seconds(shown.ms.network / 1000)}.`);
  }
  if (found.all) drawCurve(found);
  root.dataset.thresholds = `${now.score} ${now.iou}`;  // that the page now shows
}

let running = null, again = false;
function update() {  // while an answer is under way only the newest thresholds wait; all who asked wait for the last
  again = true;
  running ??= (async () => {
    try { while (again) { again = false; await refresh(); } }
    finally { running = null; }
  })();
  return running;
}

// ---- images in ----

async function show(blob, truth, name) {
  const number = ++images;
  stopCamera();
  let found;
  try { found = await ask('detect', {blob, number}); }
  catch (e) {
    if (number !== images) return;
    refused = number;  // what is said of it stays until another image comes
    say('error', e.message);
    return;
  }
  if (number !== images) return;
  shown = {...found, number, truth, name};
  URL.revokeObjectURL(ui.image.src);
  ui.image.src = URL.createObjectURL(blob);
  ui.image.alt = name;
  ui.stage.hidden = false;
  $('.detector-main').style.setProperty('--ratio', shown.width / shown.height);
  ui.known.parentElement.hidden = !truth;
  await ui.image.decode().catch(() => {});
  await update();
  if (first === undefined) {
    first = performance.now() / 1000;
    root.dataset.first = first;
    $('.numbers').textContent = `This time, the first boxes stood on the page ${seconds(first)} after it was opened: ${megabytes(loaded.bytes)} MB were loaded ` +
      `and made ready in ${seconds(loaded.seconds)}; for the image, reading took ${seconds(shown.ms.read / 1000)}, letterboxing ${seconds(shown.ms.letterbox / 1000)}, ` +
      `the network ${seconds(shown.ms.network / 1000)}, decoding ${seconds(shown.ms.decode / 1000)}.`;
  }
}

function take(files) {
  const file = [...files].find(f => f.type.startsWith('image/')) || files[0];
  if (!file) return;
  mark(null);
  show(file, null, file.name || 'Your image');
}

const fetched = new Map();
async function exampleBlob({file}) {
  if (!fetched.has(file)) fetched.set(file, fetch(new URL(`build/${file}`, BASE)).then(r => r.blob()));
  return fetched.get(file);
}

function mark(button) {
  for (const b of ui.examples.children) b.setAttribute('aria-pressed', b === button);
}

function listExamples() {
  site.examples.forEach((example, i) => {
    const words = [...new Set(example.labels)].map(l => site.networks.toy.classes[l]).join(', ');
    const name = example.photograph || words;
    const image = make('img', {src: new URL(`build/${example.file}`, BASE), alt: `Example ${i + 1}: ${name}`, loading: 'lazy'});
    const button = make('button', {type: 'button', title: name}, image);
    button.setAttribute('aria-pressed', !i);
    button.addEventListener('click', async () => { mark(button); show(await exampleBlob(example), example.photograph ? null : example, `Example: ${name}`); });
    ui.examples.append(button);
  });
}

// The examples with known boxes, one after the other, for the curve; it ends when another network is opened.
async function runExamples(mine) {
  for (const example of site.examples.filter(e => e.test)) {
    const blob = await exampleBlob(example);
    if (network !== mine) return;
    const {count} = await ask('example', {blob, truth: example});
    if (network === mine && count % 4 === 0) await update();
  }
  if (network === mine) { await update(); root.dataset.examples = 'done'; }
}

// ---- the camera ----

function stopCamera() {
  if (stream) for (const track of stream.getTracks()) track.stop();
  stream = null;
  $('.detector-camera').hidden = true;
}

async function openCamera() {
  if (!navigator.mediaDevices) { $('.capture').click(); return; }
  try { stream = await navigator.mediaDevices.getUserMedia({video: {facingMode: 'environment'}}); }
  catch (e) { say('ready', `The camera cannot be used (${e.name}). Choose an image instead.`); return; }
  $('video').srcObject = stream;
  $('.detector-camera').hidden = false;
  $('.snap').focus();
}

function snap() {
  const video = $('video');
  const canvas = make('canvas', {width: video.videoWidth, height: video.videoHeight});
  canvas.getContext('2d').drawImage(video, 0, 0);
  canvas.toBlob(blob => take([blob]), 'image/png');
}

// ---- the network ----

async function openNetwork() {
  const name = ui.network.value;
  const before = shown;
  network = shown = null;
  delete root.dataset.examples;
  say('loading', 'Loading the network …');
  const opened = await ask('open', {description: site, name, bits: ui.bits.value});
  loaded ??= opened;
  const mine = network = site.networks[name];
  const {measured} = mine;
  const [pictures, test] = measured.test.startsWith('toy') ? ['drawings', 'ToyVOC’s test images'] : ['photographs of PASCAL VOC 2007', 'VOC 2007’s test images'];
  $('.about-network').textContent = `Trained on ${measured.images.toLocaleString('en')} ${pictures}; mAP@0.5 on ${test}: ${measured.map50.toFixed(2)}.` +
    (name === 'voc' ? ' It is a small network, a quarter as wide as the published one, and it knows photographs only. Take the photograph among the examples, or one of your own.' : ' It knows drawings only; for photographs take the other network.');
  if (before) await show(await (await fetch(ui.image.src)).blob(), before.truth, before.name);
  else await show(await exampleBlob(site.examples[0]), site.examples[0], 'An example, drawn');
  runExamples(mine);
}

function listen() {
  const safely = f => (...a) => Promise.resolve(f(...a)).catch(e => say('error', e.message));
  for (const input of root.querySelectorAll('input[type=file]')) input.addEventListener('change', () => { take(input.files); input.value = ''; });
  for (const select of [ui.network, ui.bits]) select.addEventListener('change', safely(openNetwork));
  for (const name of ['score', 'iou']) {
    for (const slider of sliders(name)) slider.addEventListener('input', safely(() => { slide(name, slider.value); return update(); }));
  }
  ui.known.addEventListener('input', safely(update));
  $('.camera').addEventListener('click', safely(openCamera));
  $('.snap').addEventListener('click', snap);
  $('.cancel').addEventListener('click', stopCamera);
  document.addEventListener('paste', e => { if (e.clipboardData.files.length) take(e.clipboardData.files); });
  document.addEventListener('dragover', e => { e.preventDefault(); root.classList.add('dragging'); });
  document.addEventListener('dragleave', e => { if (!e.relatedTarget) root.classList.remove('dragging'); });
  document.addEventListener('drop', e => {
    e.preventDefault();
    root.classList.remove('dragging');
    take(e.dataTransfer.files);
  });
}

async function start() {
  const response = await fetch(new URL('build/site.json', BASE)).catch(() => null);
  if (!response || !response.ok) throw new Error('The network is not part of this copy of the site: whoever builds it runs tools/detector.py first.');
  site = await response.json();
  if (!site.runtime) throw new Error(`The detector cannot run here: ${site.missing}`);
  if (navigator.connection?.saveData) ui.bits.value = '8';
  for (const option of ui.bits.options) option.textContent += ` (${megabytes(site.networks.toy.files[option.value].bytes)} MB)`;
  listExamples();
  listen();
  for (const e of document.querySelectorAll('.detector [disabled]')) e.disabled = false;
  await openNetwork();
}

start().catch(e => say('error', e.message));
