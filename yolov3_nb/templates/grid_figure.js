
const whIou = ([w, h], [v, g]) => {
  const shared = Math.min(w, v) * Math.min(h, g);
  return shared / Math.max(w * h + v * g - shared, 1e-7);
};
const encodeBoxes = (boxes, anchors, strides, size, limit = 0.5) => strides.map((stride, scale) => {
  const owner = new Map();  // slot -> -1 where it is ignored, else 1 + the box that has it
  const slot = (place, anchor) => [...place.cell, anchor].join();
  const places = boxes.map(([x1, y1, x2, y2]) => ({
    cell: [(y1 + y2) / 2, (x1 + x2) / 2]
      .map(v => Math.min(Math.floor(v / stride), size / stride - 1)),
    ious: anchors[scale].map(anchor => whIou([x2 - x1, y2 - y1], anchor)),
  }));
  for (const place of places) {
    place.ious.forEach((v, a) => { if (v > limit) owner.set(slot(place, a), -1); });
  }
  places.forEach((place, i) => {
    const free = place.ious.map((v, a) => owner.get(slot(place, a)) > 0 ? -1 : v);
    place.anchor = free.indexOf(Math.max(...free));
    owner.set(slot(place, place.anchor), 1 + i);
  });
  for (const place of places) {
    place.owners = place.ious.map((_, a) => owner.get(slot(place, a)) || 0);
  }
  return places;
});

const set = (e, attributes) => {
  for (const [k, v] of Object.entries(attributes)) e.setAttribute(k, v);
  return e;
};
const svg = (tag, attributes, parent) =>
  parent.appendChild(set(document.createElementNS('http://www.w3.org/2000/svg', tag), attributes));
const rectangle = ([x1, y1, x2, y2]) => ({x: x1, y: y1, width: x2 - x1, height: y2 - y1});
const centred = ([x1, y1, x2, y2], [w, h]) => {
  const [x, y] = [(x1 + x2) / 2, (y1 + y2) / 2];
  return [x - w / 2, y - h / 2, x + w / 2, y + h / 2];
};
const STEPS = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]};
const END_NAMES = {body: '', first: ', upper left corner', last: ', lower right corner'};

const gridFigure = root => {
  const {size, strides, anchors, names, colors, ...begin} = JSON.parse(root.dataset.figure);
  const stage = root.querySelector('.stage');
  const panels = [...root.querySelectorAll('.grid')];
  const boxes = begin.boxes.map(box => [...box]);
  const parts = boxes.map(() => ({}));
  let chosen = begin.chosen;
  for (const e of root.querySelectorAll('.static')) e.remove();
  root.querySelector('.how').hidden = false;

  const clip = (v, low, high) => Math.min(Math.max(Math.round(v), low), high);
  const moved = ([x1, y1, x2, y2], end, dx, dy) => {
    const least = 6;
    if (end === 'first') return [clip(x1 + dx, 0, x2 - least), clip(y1 + dy, 0, y2 - least), x2, y2];
    if (end === 'last') {
      return [x1, y1, clip(x2 + dx, x1 + least, size), clip(y2 + dy, y1 + least, size)];
    }
    const [x, y] = [clip(dx, -x1, size - x2), clip(dy, -y1, size - y2)];
    return [x1 + x, y1 + y, x2 + x, y2 + y];
  };
  const take = (i, box) => {
    boxes[i] = box;
    chosen = i;
    draw();
  };

  const shapes = (g, i, end) => {
    const fill = colors[i];
    if (end === 'body') {
      svg('rect', {class: 'halo'}, g);
      svg('rect', {class: 'ring', fill, 'fill-opacity': .15, stroke: fill, 'stroke-width': size / 160}, g);
    } else {
      svg('circle', {r: size / 20, fill: 'transparent'}, g);
      svg('circle', {class: 'ring', r: size / 52, fill, stroke: '#fff', 'stroke-width': size / 200}, g);
    }
  };
  const handle = (i, end) => {
    const limits = {'aria-valuemin': 0, 'aria-valuemax': size};
    const g = svg('g', {tabindex: 0, role: 'slider', class: end, 'data-box': i, 'data-end': end, ...limits}, stage);
    shapes(g, i, end);
    let from = null;
    const at = e => {
      const m = stage.getScreenCTM();
      return [(e.clientX - m.e) / m.a, (e.clientY - m.f) / m.d];
    };
    g.addEventListener('pointerdown', e => {
      e.preventDefault();
      g.setPointerCapture(e.pointerId);
      g.focus({preventScroll: true});
      from = [at(e), boxes[i]];
    });
    g.addEventListener('pointermove', e => {
      if (!from) return;
      const [x, y] = at(e);
      const [[x0, y0], box] = from;
      take(i, moved(box, end, x - x0, y - y0));
    });
    for (const over of ['pointerup', 'pointercancel']) {
      g.addEventListener(over, () => { from = null; });
    }
    g.addEventListener('focus', () => take(i, boxes[i]));
    g.addEventListener('keydown', e => {
      const step = STEPS[e.key];
      if (!step) return;
      e.preventDefault();
      const far = e.shiftKey ? 10 : 1;
      take(i, moved(boxes[i], end, step[0] * far, step[1] * far));
    });
    parts[i][end] = g;
  };

  const drawHandle = (g, i, end) => {
    const box = boxes[i];
    const [x, y] = end === 'last' ? box.slice(2) : box.slice(0, 2);
    for (const e of g.querySelectorAll('rect')) set(e, rectangle(box));
    for (const e of g.querySelectorAll('circle')) set(e, {cx: x, cy: y});
    const does = end === 'body' ? 'move' : 'pull';
    set(g, {'aria-label': `${names[i]}${END_NAMES[end]}; arrow keys ${does} it, with Shift by 10`,
            'aria-valuetext': `left ${box[0]}, top ${box[1]}, right ${box[2]}, bottom ${box[3]} pixels`,
            'aria-valuenow': x, 'data-value': JSON.stringify(box)});
  };

  // What becomes of one of the cell's anchors, for the box that is chosen.
  const fate = owner => {
    if (owner === chosen + 1) return ['takes', 'is taken by this box'];
    if (owner > 0) return ['taken', `is taken by ${names[owner - 1]}`];
    return owner < 0 ? ['ignored', 'is ignored'] : ['background', 'counts as background'];
  };
  const drawPanel = (panel, scale, places) => {
    const layer = panel.querySelector('.layer');
    const [stride, line] = [strides[scale], size / 150];
    layer.replaceChildren();
    places.forEach(({cell: [row, column]}, i) => {
      const corner = [column * stride, row * stride];
      svg('rect', {...rectangle([...corner, corner[0] + stride, corner[1] + stride]), fill: colors[i],
                   'fill-opacity': i === chosen ? .85 : .4, stroke: '#fff', 'stroke-width': line / 2}, layer);
    });
    svg('rect', {...rectangle(boxes[chosen]), fill: 'none', stroke: '#fff', 'stroke-width': line}, layer);
    const {cell: [row, column], owners, ious} = places[chosen];
    const words = anchors[scale].map((anchor, a) => {
      const [kind, said] = fate(owners[a]);
      svg('rect', {...rectangle(centred(boxes[chosen], anchor)), class: kind, fill: 'none',
                   'stroke-width': line * (kind === 'takes' ? 2 : 1)}, layer);
      return `${anchor.map(Math.round).join(' × ')} (IoU ${ious[a].toFixed(2)}) ${said}`;
    });
    panel.querySelector('figcaption').textContent =
      `Stride ${stride}, row ${row}, column ${column}: ${words.join('; ')}.`;
  };

  function draw() {
    const places = encodeBoxes(boxes, anchors, strides, size);
    parts.forEach((own, i) => Object.entries(own).forEach(([end, g]) => drawHandle(g, i, end)));
    panels.forEach((panel, scale) => drawPanel(panel, scale, places[scale]));
    root.querySelector('.name').textContent = names[chosen];
    root.dataset.encoded = JSON.stringify(places);
  }
  for (const end of ['body', 'first', 'last']) boxes.forEach((_, i) => handle(i, end));
  draw();
};
document.querySelectorAll('.grid-figure:not([data-ready])').forEach(root => {root.dataset.ready = ''; gridFigure(root); });
