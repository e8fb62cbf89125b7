
const iouFamily = (a, b) => {  // xyxy; the guards are those of paired_iou
  const eps = 1e-7, {max, min, atan2, PI} = Math, side = (p, q) => max(q - p, 0);
  const wa = side(a[0], a[2]), ha = side(a[1], a[3]), wb = side(b[0], b[2]), hb = side(b[1], b[3]);
  const inter = side(max(a[0], b[0]), min(a[2], b[2])) * side(max(a[1], b[1]), min(a[3], b[3]));
  const union = max(wa * ha + wb * hb - inter, eps), iou = inter / union;
  const hw = side(min(a[0], b[0]), max(a[2], b[2])), hh = side(min(a[1], b[1]), max(a[3], b[3])), hull = max(hw * hh, eps);
  const dx = (a[0] + a[2] - b[0] - b[2]) / 2, dy = (a[1] + a[3] - b[1] - b[3]) / 2;
  const v = 4 / PI ** 2 * (atan2(wa, max(ha, eps)) - atan2(wb, max(hb, eps))) ** 2;
  const diou = iou - (dx * dx + dy * dy) / max(hw * hw + hh * hh, eps);
  return {iou, giou: iou - (hull - union) / hull, ciou: diou - v / max(1 - iou + v, eps) * v, inter, union};
};
const rounds = (boxes, scores, labels, threshold, perClass) => {  // of NMS: each winner with those that it throws out
  let left = scores.map((_, i) => i).sort((i, j) => scores[j] - scores[i]);
  const diary = [];
  while (left.length) {
    const [best, ...rest] = left;
    const out = rest.filter(i => (!perClass || labels[i] === labels[best]) && iouFamily(boxes[best], boxes[i]).iou > threshold);
    diary.push([best, out]);
    left = rest.filter(i => !out.includes(i));
  }
  return diary;
};

const svg = (tag, attributes, parent) => {
  const e = document.createElementNS('http://www.w3.org/2000/svg', tag);
  for (const [k, v] of Object.entries(attributes)) e.setAttribute(k, v);
  return parent ? parent.appendChild(e) : e;
};
const place = (e, [x1, y1, x2, y2]) => {
  for (const [k, v] of Object.entries({x: x1, y: y1, width: x2 - x1, height: y2 - y1})) e.setAttribute(k, v);
};
const PRESETS = [['overlap', [278, 243, 413, 350], [300, 215, 430, 320]], ['apart', [278, 243, 413, 350], [30, 45, 120, 195]],
  ['inside', [240, 150, 420, 330], [280, 190, 370, 280]], ['other shape', [200, 130, 320, 250], [140, 160, 380, 220]],
  ['equal', [278, 243, 413, 350], [278, 243, 413, 350]]];
const pairPanel = (root, data) => {
  const stage = root.querySelector('.pair svg'), [W, H] = data.size, boxes = {a: [...data.a], b: [...data.b]}, parts = {};
  const clip = (v, lo, hi) => Math.min(Math.max(Math.round(v), lo), hi);
  const spot = {a: 'Box A, the truth', b: 'Box B, the guess'};
  svg('image', {href: data.image, width: W, height: H}, stage);
  const hull = svg('rect', {fill: 'none', stroke: '#fff', 'stroke-width': 2, 'stroke-dasharray': '7 5'}, stage);
  const shared = svg('rect', {fill: '#fff', 'fill-opacity': .55}, stage);
  const link = svg('line', {stroke: '#fff', 'stroke-width': 2}, stage);
  const move = (name, end, dx, dy) => {
    const [x1, y1, x2, y2] = boxes[name], least = 4;
    if (end === 'body') { dx = clip(dx, -x1, W - x2); dy = clip(dy, -y1, H - y2); boxes[name] = [x1 + dx, y1 + dy, x2 + dx, y2 + dy]; }
    if (end === 'first') boxes[name] = [clip(x1 + dx, 0, x2 - least), clip(y1 + dy, 0, y2 - least), x2, y2];
    if (end === 'last') boxes[name] = [x1, y1, clip(x2 + dx, x1 + least, W), clip(y2 + dy, y1 + least, H)];
    draw();
  };
  const handle = (name, end, color) => {
    const g = svg('g', {tabindex: 0, role: 'slider', class: end === 'body' ? 'body' : 'corner', 'data-box': name, 'data-end': end,
                        'aria-valuemin': 0, 'aria-valuemax': W}, stage);
    const shape = end === 'body' ? 'rect' : 'circle';
    if (end === 'body') {
      svg(shape, {class: 'halo'}, g);
      svg(shape, {class: 'ring', fill: color, 'fill-opacity': .12, stroke: color, 'stroke-width': 3}, g);
      svg('text', {class: 'tag', fill: color}, g).textContent = name.toUpperCase();
    } else {
      svg(shape, {r: 20, fill: 'transparent'}, g);
      svg(shape, {class: 'ring', r: 8, fill: color, stroke: '#fff', 'stroke-width': 2}, g);
    }
    let from = null;
    const at = e => { const m = stage.getScreenCTM(); return [(e.clientX - m.e) / m.a, (e.clientY - m.f) / m.d]; };
    g.addEventListener('pointerdown', e => {
      e.preventDefault();
      g.setPointerCapture(e.pointerId);
      g.focus({preventScroll: true});
      from = [at(e), boxes[name]];
    });
    g.addEventListener('pointermove', e => {
      if (!from) return;
      const [x, y] = at(e), [[x0, y0], box] = from;
      boxes[name] = box;
      move(name, end, x - x0, y - y0);
    });
    for (const over of ['pointerup', 'pointercancel']) g.addEventListener(over, () => { from = null; say(); });
    g.addEventListener('keydown', e => {
      const step = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]}[e.key], far = e.shiftKey ? 10 : 1;
      if (!step) return;
      e.preventDefault();
      move(name, end, step[0] * far, step[1] * far);
      say();
    });
    (parts[name] ??= {})[end] = g;
  };
  for (const end of ['body', 'first', 'last']) for (const [name, color] of [['a', '#007a58'], ['b', '#c04a00']]) handle(name, end, color);
  let timer;
  const sentence = m => m.iou === 1 ? 'The same box twice: all three are 1.' : m.inter === 0
    ? 'No shared pixel: IoU is 0, near or far. GIoU and CIoU still tell the difference.'
    : `They share ${m.inter} of ${m.union} square pixels.`;
  const say = () => {
    clearTimeout(timer);
    timer = setTimeout(() => { root.querySelector('.said').textContent = root.querySelector('.sentence').textContent; }, 400);
  };
  function draw() {
    const m = iouFamily(boxes.a, boxes.b), {a, b} = boxes, far = (f, i) => f(a[i], b[i]);
    place(hull, [far(Math.min, 0), far(Math.min, 1), far(Math.max, 2), far(Math.max, 3)]);
    place(shared, m.inter ? [far(Math.max, 0), far(Math.max, 1), far(Math.min, 2), far(Math.min, 3)] : [0, 0, 0, 0]);
    const mid = [a, b].map(([x1, y1, x2, y2]) => [(x1 + x2) / 2, (y1 + y2) / 2]);
    for (const [k, v] of Object.entries({x1: mid[0][0], y1: mid[0][1], x2: mid[1][0], y2: mid[1][1]})) link.setAttribute(k, v);
    for (const [name, own] of Object.entries(parts)) for (const [end, g] of Object.entries(own)) {
      const box = boxes[name], [x, y] = end === 'last' ? [box[2], box[3]] : [box[0], box[1]];
      for (const e of g.querySelectorAll('rect')) place(e, box);
      for (const e of g.querySelectorAll('circle')) { e.setAttribute('cx', x); e.setAttribute('cy', y); }
      for (const e of g.querySelectorAll('text')) { e.setAttribute('x', x + 10); e.setAttribute('y', y + 24); }
      const what = {body: '', first: ', upper left corner', last: ', lower right corner'}[end];
      g.setAttribute('aria-label', `${spot[name]}${what}; arrow keys ${end === 'body' ? 'move' : 'pull'} it, with Shift by 10`);
      g.setAttribute('aria-valuenow', x);
      g.setAttribute('aria-valuetext', `left ${box[0]}, top ${box[1]}, right ${box[2]}, bottom ${box[3]} pixels`);
      g.dataset.value = JSON.stringify(box);
    }
    for (const out of root.querySelectorAll('.pair output')) {
      const v = m[out.dataset.kind];
      out.textContent = v.toFixed(3).replace('-', '−');
      out.dataset.value = v;
      out.previousElementSibling.firstChild.style.cssText = v < 0 ? `right:50%;width:${-v * 50}%` : `left:50%;width:${v * 50}%`;
    }
    root.querySelector('.sentence').textContent = sentence(m);
  }
  for (const [label, a, b] of PRESETS) {
    const button = root.querySelector('.presets').appendChild(document.createElement('button'));
    button.type = 'button';
    button.textContent = label;
    button.addEventListener('click', () => { boxes.a = [...a]; boxes.b = [...b]; draw(); say(); });
  }
  draw();
};

const nmsPanel = (root, data) => {
  const stage = root.querySelector('.nms svg'), [W, H] = data.size, find = s => root.querySelector('.nms ' + s);
  const slider = find('input[type=range]'), each = find('input[type=checkbox]'), play = find('button'), text = find('.kept');
  svg('image', {href: data.image, width: W, height: H, opacity: .6}, stage);
  svg('rect', {width: W, height: H, fill: '#fff', 'fill-opacity': .3}, stage);
  const frames = data.boxes.map((box, i) => {
    const g = svg('g', {}, stage), color = data.colors[data.labels[i]];
    for (const kind of ['halo', 'frame']) place(svg('rect', {class: kind, fill: 'none', stroke: color}, g), box);
    const tag = svg('text', {x: Math.max(box[0], 0) + 3, y: box[1] < 18 ? box[1] + 16 : box[1] - 4, class: 'tag', fill: '#111'}, g);
    tag.textContent = `${data.names[data.labels[i]]} ${data.scores[i].toFixed(2)}`;
    return g;
  });
  let timer = null, done = Infinity;
  const draw = () => {
    const threshold = Number(slider.value), diary = rounds(data.boxes, data.scores, data.labels, threshold, each.checked);
    const shown = diary.slice(0, done);
    const kept = shown.map(([best]) => best), gone = new Set(shown.flatMap(([, out]) => out));
    frames.forEach((g, i) => {
      const stays = kept.includes(i), [halo, frame] = g.querySelectorAll('rect');
      halo.setAttribute('visibility', stays ? 'visible' : 'hidden');
      frame.setAttribute('stroke-width', stays ? 3 : 1.2);
      frame.setAttribute('stroke-dasharray', gone.has(i) ? '2 4' : 'none');
      frame.setAttribute('opacity', gone.has(i) ? .55 : 1);
      g.lastChild.setAttribute('visibility', stays && kept.length < 13 ? 'visible' : 'hidden');
      if (stays) stage.append(g);
    });
    const all = data.boxes.length, left = all - kept.length - gone.size;
    find('.threshold').textContent = threshold.toFixed(2);
    text.textContent = left ? `Round ${kept.length} of ${diary.length}: the best of the rest is kept, ${gone.size} are out, ${left} wait.`
                            : `${kept.length} of ${all} boxes stay, ${gone.size} are thrown out.`;
    text.dataset.keep = JSON.stringify(kept);
    return diary.length;
  };
  const stop = () => { clearInterval(timer); timer = null; done = Infinity; play.textContent = 'Play the rounds'; };
  for (const input of [slider, each]) input.addEventListener('input', () => { stop(); draw(); });
  play.addEventListener('click', () => {
    if (timer) { stop(); draw(); return; }
    done = 0;
    play.textContent = 'Stop';
    const next = () => { done += 1; if (done >= draw()) { stop(); draw(); } };
    timer = setInterval(next, 900);
    next();
  });
  draw();
};
for (const root of document.querySelectorAll('.box-figure:not([data-ready])')) {
  root.dataset.ready = '';
  const data = JSON.parse(root.dataset.figure);
  pairPanel(root, data);
  if (root.querySelector('.nms')) nmsPanel(root, data);
}
