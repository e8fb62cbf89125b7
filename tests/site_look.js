const [width, scheme, first, done] = arguments, bad = [], seen = new Set();
const name = e => e.tagName.toLowerCase() + (e.id && '#' + e.id) + (e.getAttribute('class') ? '.' + e.getAttribute('class').trim().split(/\s+/).join('.') : '');
const words = e => ' "' + e.textContent.trim().replace(/\s+/g, ' ').slice(0, 40) + '"';

function overflow() {
  if (document.scrollingElement.scrollWidth <= width) return;  // not innerWidth: a phone zooms out until all is seen
  const scrolls = e => { for (let p = e.parentElement; p && p !== document.body; p = p.parentElement) if (getComputedStyle(p).overflowX !== 'visible') return true; };
  const wide = [...document.querySelectorAll('body *')].filter(e => e.getBoundingClientRect().right > width + 1 && !scrolls(e));
  bad.push(`${document.scrollingElement.scrollWidth} pixels wide: ` + wide.slice(0, 3).map(e => name(e) + words(e)).join(', '));
}

const numbers = s => { const [r, g, b, a = 1] = s.match(/[\d.]+/g).map(Number); return [r, g, b, a]; };
const over = (top, under) => [0, 1, 2].map(i => top[i] * top[3] + under[i] * (1 - top[3])).concat(1);
const light = c => c.slice(0, 3).map(v => v / 255).map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4).reduce((s, v, i) => s + v * [.2126, .7152, .0722][i], 0);

function ground(e) {  // the colour behind a text; null on a picture
  const layers = [];
  for (let p = e; p; p = p.parentElement) {
    const css = getComputedStyle(p), c = numbers(css.backgroundColor);
    if (css.backgroundImage !== 'none') return null;
    if (c[3]) layers.push(c);
    if (c[3] >= 1) break;
  }
  return layers.reverse().reduce((under, top) => over(top, under), [255, 255, 255, 1]);
}

function contrast() {  // WCAG 2.2, 1.4.3: 4.5 to 1; 3 to 1 for large text. One of each kind of element is enough.
  for (const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT); walker.nextNode();) {
    const e = walker.currentNode.parentElement, text = walker.currentNode.data.trim();
    const kind = [e, e.parentElement, e.closest('pre, table, nav, header, footer, details, main')].map(x => x && x.tagName + x.className).join() + e.getAttribute('style');
    if (!text || seen.has(kind) || e.closest('svg, script, style') || !e.checkVisibility({visibilityProperty: true, opacityProperty: true})) continue;
    seen.add(kind);
    const css = getComputedStyle(e), back = ground(e);
    if (!back) continue;
    let ink = numbers(css.color);
    for (let p = e; p; p = p.parentElement) ink[3] *= +getComputedStyle(p).opacity;
    const [a, b] = [light(over(ink, back)), light(back)], size = parseFloat(css.fontSize);
    const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05), large = size >= 24 || size >= 18.6 && css.fontWeight >= 700;
    if (ratio < (large ? 3 : 4.5)) bad.push(`contrast ${ratio.toFixed(2)}: ${name(e)}${words(e)}`);
  }
}

function signs() {  // icons: 3 to 1 (1.4.11)
  for (const e of document.querySelectorAll('i.bi')) {
    const back = ground(e.parentElement);
    if (!back || !e.checkVisibility({visibilityProperty: true, opacityProperty: true})) continue;
    const ink = numbers(getComputedStyle(e, '::before').color);
    for (let p = e; p; p = p.parentElement) ink[3] *= +getComputedStyle(p).opacity;
    const [a, b] = [light(over(ink, back)), light(back)], ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    if (ratio < 3) bad.push(`contrast ${ratio.toFixed(2)} of an icon: ${name(e)}`);
  }
}

function small() {  // words of a drawing that has shrunk with its page
  for (const e of document.querySelectorAll('main svg text')) {
    const size = parseFloat(getComputedStyle(e).fontSize) * (e.getScreenCTM()?.a ?? 1);
    if (size && size < 8 && e.checkVisibility()) return bad.push(`letters of ${size.toFixed(1)} pixels: ${name(e)}${words(e)}`);
  }
}

function formulas() {  // a desk has room for them; on a phone they scroll
  if (width < 1000) return;
  for (const e of document.querySelectorAll('main .katex-display'))
    if (e.scrollWidth > e.clientWidth + 1) bad.push(`a formula is cut:${words(e)}`);
}

const sheets = new Map();  // how white a figure is
function glaring() {  // figures that stand in the dark on white paper
  return [...document.querySelectorAll('.cell-output-display img')].filter(img => {
    if (!img.complete || !img.naturalWidth || /invert/.test(getComputedStyle(img).filter) || img.matches('.with-photographs')) return;
    if (!sheets.has(img)) {
      const canvas = Object.assign(document.createElement('canvas'), {width: 64, height: 64}), context = canvas.getContext('2d', {willReadFrequently: true});
      context.drawImage(img, 0, 0, 64, 64);
      const pixels = context.getImageData(0, 0, 64, 64).data;
      let white = 0;
      for (let i = 0; i < pixels.length; i += 4) white += pixels[i + 3] < 128 || Math.min(pixels[i], pixels[i + 1], pixels[i + 2]) > 228;
      sheets.set(img, white / 4096);
    }
    return sheets.get(img) > .3;
  });
}

function once() {
  for (const i of document.images) if (!i.getAttribute('alt')) bad.push(`no words for the picture ${name(i)} in ${name(i.parentElement)}`);
  for (const i of document.images) if (i.complete && !i.naturalWidth && i.src.startsWith(location.origin)) bad.push(`no picture: ${i.src.slice(0, 80)}`);
}

function prose() {
  const copy = document.querySelector('main').cloneNode(true);
  copy.querySelectorAll('pre, code, script, style').forEach(e => e.replaceWith(' '));
  copy.querySelectorAll('p, li, tr, td, div, h1, h2, h3').forEach(e => e.prepend('\n'));
  return copy.textContent;
}

document.head.append(Object.assign(document.createElement('style'), {textContent: '* { transition: none !important; }'}));  // colours on their way count for nothing
const started = performance.now();
(function ready() {  // the theme follows the scheme a moment later
  const dark = light(ground(document.body) || [255, 255, 255]) < .2;
  if ((dark !== (scheme === 'dark') || Boolean(document.querySelector(':is(html, body).quarto-dark')) !== dark) && performance.now() - started < 20000)
    return setTimeout(ready, 20);
  if (dark !== (scheme === 'dark')) bad.push(`does not turn ${scheme}`);
  if (dark && glaring().length && performance.now() - started < 3000) return setTimeout(ready, 50);  // its dark form is being made
  if (dark) for (const img of glaring()) bad.push(`a figure glares in the dark: ${img.alt.slice(0, 60)}`);
  overflow(); contrast(); signs(); small(); formulas();
  if (first) once();
  done([bad, first ? prose() : '']);
})();
