// What the course's library does to an image before and after its network, in JavaScript: the same letterbox, decoding, NMS and average
// precision, function by function, so that the page finds the library's boxes. No DOM in here: the worker and the tests use it as it is.

export const STRIDES = [32, 16, 8];
const MAX_STRETCH = Math.log(64);  // as yolov3_nb.anchors
const sigmoid = x => 1 / (1 + Math.exp(-x));

// Python's round: halves go to the even neighbour.
export function round(x) {
  const low = Math.floor(x);
  return x - low === 0.5 ? low + low % 2 : Math.round(x);
}

// ---- letterbox: yolov3_nb.augment.letterbox_geometry, and OpenCV's two ways to resize ----

export function letterboxGeometry(height, width, size) {
  const scale = size / Math.max(height, width);
  const h = Math.max(1, round(height * scale));
  const w = Math.max(1, round(width * scale));
  return {h, w, top: Math.floor((size - h) / 2), left: Math.floor((size - w) / 2)};
}

// Along one side: for each new pixel, the first old pixel that it is made of, and the weights of that and those that follow.
// INTER_AREA: what it covers of each.
function areaWeights(from, to) {
  const scale = from / to;
  return Array.from({length: to}, (_, i) => {
    const begin = i * scale;
    const end = Math.min(begin + scale, from);
    const first = Math.floor(begin);
    const shares = [];
    for (let j = first; j < Math.ceil(end); j++) shares.push((Math.min(j + 1, end) - Math.max(j, begin)) / (end - begin));
    return {first, shares};
  });
}

// INTER_LINEAR: its two neighbours, of which one beyond the edge counts for nothing.
function linearWeights(from, to) {
  return Array.from({length: to}, (_, i) => {
    const at = Math.min(Math.max((i + 0.5) * from / to - 0.5, 0), from - 1);
    const first = Math.min(Math.floor(at), Math.max(from - 2, 0));
    return {first, shares: from > 1 ? [1 - (at - first), at - first] : [1]};
  });
}

// One line of RGBA bytes to RGB sums.
function resizeLine(data, offset, across) {
  const out = new Float32Array(across.length * 3);
  for (let x = 0; x < across.length; x++) {
    const {first, shares} = across[x];
    for (let k = 0; k < shares.length; k++) {
      const at = offset + (first + k) * 4;
      out[x * 3] += data[at] * shares[k];
      out[x * 3 + 1] += data[at + 1] * shares[k];
      out[x * 3 + 2] += data[at + 2] * shares[k];
    }
  }
  return out;
}

// RGBA bytes to RGB bytes of another size: area when shrinking, linear when growing.
export function resize({data, width, height}, h, w) {
  const weights = Math.max(h / height, w / width) < 1 ? areaWeights : linearWeights;
  const across = weights(width, w);
  const out = new Uint8ClampedArray(h * w * 3);
  const lines = new Map();  // those that the next row may need again
  weights(height, h).forEach(({first, shares}, y) => {
    for (const line of lines.keys()) if (line < first) lines.delete(line);
    const sum = new Float32Array(w * 3);
    shares.forEach((share, k) => {
      if (!lines.has(first + k)) lines.set(first + k, resizeLine(data, (first + k) * width * 4, across));
      const line = lines.get(first + k);
      for (let i = 0; i < sum.length; i++) sum[i] += line[i] * share;
    });
    for (let i = 0; i < sum.length; i++) out[y * w * 3 + i] = round(sum[i]);
  });
  return out;
}

// An image as the network takes it: (3, size, size) float32 in [0, 1], and the same as RGBA bytes to look at.
export function letterbox(image, size) {
  const {h, w, top, left} = letterboxGeometry(image.height, image.width, size);
  const pixels = resize(image, h, w);
  const input = new Float32Array(3 * size * size);
  const view = new Uint8ClampedArray(size * size * 4);
  for (let i = 3; i < view.length; i += 4) view[i] = 255;
  for (let y = 0; y < h; y++) {
    for (let x = 0; x < w; x++) {
      const at = (y + top) * size + x + left;
      for (let c = 0; c < 3; c++) {
        const value = pixels[(y * w + x) * 3 + c];
        input[c * size * size + at] = value / 255;
        view[at * 4 + c] = value;
      }
    }
  }
  return {input, view};
}

export function unletterbox([x1, y1, x2, y2], height, width, size) {
  const {h, w, top, left} = letterboxGeometry(height, width, size);
  const back = (v, edge, factor, most) => Math.min(Math.max((v - edge) * factor, 0), most);
  return [back(x1, left, width / w, width), back(y1, top, height / h, height),
          back(x2, left, width / w, width), back(y2, top, height / h, height)];
}

// ---- decoding: yolov3_nb.anchors.decode and yolov3_nb.model.detect ----

function probabilities(logits, activation) {
  if (activation === 'sigmoid') return logits.map(sigmoid);
  const most = Math.max(...logits);
  const powers = logits.map(v => Math.exp(v - most));
  const sum = powers.reduce((a, b) => a + b);
  return powers.map(v => v / sum);
}

// Raw outputs, three arrays (3, rows, columns, 5 + C), to candidates that score above `floor`, best first, before NMS;
// and the highest objectness of each cell, for the pictures of the grids.
export function decode(outputs, network, floor) {
  const {size, anchors, activation, classes} = network;
  const channels = 5 + classes.length;
  const candidates = [];
  const grids = outputs.map((out, scale) => {
    const stride = STRIDES[scale];
    const n = size / stride;
    const objectness = new Float32Array(n * n);
    for (let i = 0; i < 3 * n * n; i++) {
      const p = out.subarray(i * channels, (i + 1) * channels);
      const [anchor, row, column] = [Math.floor(i / (n * n)), Math.floor(i / n) % n, i % n];
      const sure = sigmoid(p[4]);
      const cell = row * n + column;
      objectness[cell] = Math.max(objectness[cell], sure);
      if (sure <= floor) continue;
      const chances = probabilities(Array.from(p.subarray(5)), activation);
      const chance = Math.max(...chances);
      if (sure * chance <= floor) continue;
      const x = (sigmoid(p[0]) + column) * stride;
      const y = (sigmoid(p[1]) + row) * stride;
      const w = Math.exp(Math.min(p[2], MAX_STRETCH)) * anchors[scale][anchor][0];
      const h = Math.exp(Math.min(p[3], MAX_STRETCH)) * anchors[scale][anchor][1];
      candidates.push({square: [x - w / 2, y - h / 2, x + w / 2, y + h / 2], score: sure * chance,
                       label: chances.indexOf(chance), scale, anchor, row, column});
    }
    return objectness;
  });
  candidates.sort((a, b) => b.score - a.score);
  return {candidates, grids};
}

export function iou(a, b) {
  const w = Math.max(Math.min(a[2], b[2]) - Math.max(a[0], b[0]), 0);
  const h = Math.max(Math.min(a[3], b[3]) - Math.max(a[1], b[1]), 0);
  const area = ([x1, y1, x2, y2]) => (x2 - x1) * (y2 - y1);
  const union = area(a) + area(b) - w * h;
  return union > 0 ? w * h / union : 0;
}

// Class-aware, greedy, on the square that the network saw; the best `most` stay.
export function suppress(candidates, threshold, most = 100) {
  const kept = [];
  for (const c of candidates) {
    if (kept.length === most) break;
    if (!kept.some(k => k.label === c.label && iou(k.square, c.square) > threshold)) kept.push(c);
  }
  return kept;
}

// ---- average precision: yolov3_nb.evaluation.match, pr_curve and voc_ap ----

// Judge the detections of one image: 1 hit, 0 false, -1 ignored. They come best first.
export function judge(detections, truth, least = 0.5) {
  const taken = new Set();
  return detections.map(d => {
    let best = -1;
    let overlap = 0;
    truth.boxes.forEach((box, i) => {
      const o = truth.labels[i] === d.label ? iou(d.box, box) : 0;
      if (o >= least && o > overlap) [best, overlap] = [i, o];
    });
    if (best < 0) return 0;
    if (truth.difficult[best]) return -1;
    if (taken.has(best)) return 0;
    taken.add(best);
    return 1;
  });
}

// Verdicts with their scores, of as many objects as `positives`: recall, precision and score after each, best first.
export function prCurve(judged, positives) {
  const order = judged.filter(j => j.verdict >= 0).sort((a, b) => b.score - a.score);
  let hits = 0;
  return order.map(({verdict, score}, i) => {
    hits += verdict;
    return {recall: hits / positives, precision: hits / (i + 1), score};
  });
}

// The area under the envelope of a curve.
export function averagePrecision(curve) {
  let area = 0;
  let best = 0;
  for (let i = curve.length - 1; i >= 0; i--) {
    best = Math.max(best, curve[i].precision);
    area += best * (curve[i].recall - (i ? curve[i - 1].recall : 0));
  }
  return area;
}

// All examples together: one curve over all classes, and the mean of the classes' own average precisions.
export function evaluate(images, numClasses) {
  const judged = [];
  const positives = new Array(numClasses).fill(0);
  for (const {detections, truth} of images) {
    judge(detections, truth).forEach((verdict, i) => judged.push({verdict, score: detections[i].score, label: detections[i].label}));
    truth.labels.forEach((label, i) => { if (!truth.difficult[i]) positives[label] += 1; });
  }
  const present = positives.flatMap((n, label) => n ? [label] : []);
  const ap = present.map(label => averagePrecision(prCurve(judged.filter(j => j.label === label), positives[label])));
  const objects = positives.reduce((a, b) => a + b, 0);
  return {curve: prCurve(judged, objects), map: ap.reduce((a, b) => a + b, 0) / ap.length, objects, images: images.length};
}
