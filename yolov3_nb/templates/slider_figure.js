
// A slider, the arrow keys or a drag over the image choose which frame is seen; a button plays them.
const sliderFigure = root => {
  const frames = [...root.querySelectorAll('.frame')];
  const [stage, slider, button] = ['svg', 'input', 'button'].map(s => root.querySelector(s));
  const last = frames.length - 1;
  let timer = null;
  const show = i => {
    frames.forEach((frame, k) => frame.classList.toggle('on', k === i));
    slider.value = i;
    slider.setAttribute('aria-valuetext', frames[i].dataset.value);
    root.querySelector('.value').textContent = frames[i].dataset.value;
    root.querySelector('.words').textContent = frames[i].dataset.words;
  };
  const stop = () => {
    clearInterval(timer);
    timer = null;
    button.textContent = 'Play';
  };
  slider.addEventListener('input', () => { stop(); show(Number(slider.value)); });
  button.addEventListener('click', () => {
    if (timer) { stop(); return; }
    button.textContent = 'Stop';
    if (Number(slider.value) === last) show(0);
    timer = setInterval(() => {
      show(Math.min(Number(slider.value) + 1, last));
      if (Number(slider.value) === last) stop();
    }, Math.max(150, 6000 / frames.length));
  });

  const under = e => {
    const {left, width} = stage.getBoundingClientRect();
    return Math.round(Math.min(Math.max((e.clientX - left) / width, 0), 1) * last);
  };
  let held = false;
  stage.addEventListener('pointerdown', e => {
    held = true;
    stage.setPointerCapture(e.pointerId);
    stop();
    show(under(e));
  });
  stage.addEventListener('pointermove', e => { if (held) show(under(e)); });
  for (const end of ['pointerup', 'pointercancel']) stage.addEventListener(end, () => { held = false; });

  root.querySelector('.how').hidden = false;
  show(Number(slider.value));
};
document.querySelectorAll('.slider-figure:not([data-ready])').forEach(root => {
  root.dataset.ready = '';
  sliderFigure(root);
});
