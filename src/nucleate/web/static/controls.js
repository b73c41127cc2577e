// The mouse, the fingers and the keyboard.

const STEP = 80; // screen pixels that an arrow moves
const FACTOR = 1.5;
const byId = (id) => document.getElementById(id);

// Keys that also mean something to a control that has the focus.
function onCanvas({ camera, zoom, pan, whole, select, selectAt }) {
  return {
    ArrowLeft: () => pan(STEP, 0),
    ArrowRight: () => pan(-STEP, 0),
    ArrowUp: () => pan(0, STEP),
    ArrowDown: () => pan(0, -STEP),
    "+": () => zoom(FACTOR),
    "=": () => zoom(FACTOR),
    "-": () => zoom(1 / FACTOR),
    0: whole,
    Enter: () => selectAt({ x: camera.screen.width / 2, y: camera.screen.height / 2 }),
    Escape: () => select(0),
  };
}

function anywhere({ step, toggle, reset, save, help }) {
  return {
    n: () => step(1),
    p: () => step(-1),
    o: () => toggle("outlines"),
    t: () => toggle("truth"),
    e: () => toggle("entropy"),
    r: reset,
    s: save,
    "?": help,
  };
}

export function listenToKeys(canvas, actions) {
  const [there, everywhere] = [onCanvas(actions), anywhere(actions)];
  window.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || byId("help").open) return;
    if (event.target.matches?.("input[type=number], select")) return; // what is typed there is meant for them
    const meant = event.target === canvas || event.target === document.body;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    const action = everywhere[key] ?? (meant ? there[key] : undefined);
    if (!action) return;
    event.preventDefault();
    action();
  });
}

export function listenToButtons({ zoom, whole, step, reset, save, help, open, redraw, shadeAgain }) {
  const clicks = { in: () => zoom(FACTOR), out: () => zoom(1 / FACTOR), fit: whole, reset, save, ask: help };
  Object.assign(clicks, { previous: () => step(-1), next: () => step(1) });
  for (const [id, action] of Object.entries(clicks)) byId(id).addEventListener("click", action);
  for (const id of ["outlines", "truth", "entropy", "opacity"]) byId(id).addEventListener("input", redraw);
  for (const id of ["brightness", "contrast"]) byId(id).addEventListener("input", shadeAgain);
  byId("images").addEventListener("change", (event) => open(Number(event.target.value)));
}

// One pointer drags, or clicks where it stays; two zoom, as the wheel does.
export function listenToPointers(canvas, camera, { zoom, redraw, selectAt }) {
  const down = new Map();
  let moved = 0;
  const at = (event) => ({ x: event.offsetX, y: event.offsetY });
  const apart = () => {
    const [a, b] = down.values();
    return Math.hypot(a.x - b.x, a.y - b.y);
  };
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    const lines = event.deltaMode === 1 ? 30 : 1;
    zoom(Math.exp(-event.deltaY * lines * (event.ctrlKey ? 0.01 : 0.0015)), at(event));
  }, { passive: false });
  canvas.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    canvas.setPointerCapture(event.pointerId);
    down.set(event.pointerId, at(event));
    moved = down.size > 1 ? Infinity : 0;
  });
  canvas.addEventListener("pointermove", (event) => {
    const before = down.get(event.pointerId);
    if (!before) return;
    const now = at(event);
    const distance = down.size === 2 ? apart() : 0;
    down.set(event.pointerId, now);
    moved += Math.hypot(now.x - before.x, now.y - before.y);
    if (moved < 4) return;
    canvas.classList.add("moving");
    camera.pan((now.x - before.x) / down.size, (now.y - before.y) / down.size);
    if (down.size === 2 && distance > 0) camera.zoom(apart() / distance, now);
    redraw();
  });
  const up = (event) => {
    if (!down.delete(event.pointerId)) return;
    canvas.classList.remove("moving");
    if (event.type === "pointerup" && down.size === 0 && moved < 4) selectAt(at(event));
  };
  canvas.addEventListener("pointerup", up);
  canvas.addEventListener("pointercancel", up);
}
