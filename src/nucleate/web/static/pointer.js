// The mouse, the pen and the fingers: the left button and the pen use the tool; two fingers, the other buttons and the
// hand move the picture, and the wheel zooms.

const ERASER = 32; // of the buttons of a pen

export function listenToPointers(canvas, camera, { zoom, pan, tool, erasing, toTile, pointed, redraw }) {
  const fingers = new Map();
  let penSeen = false; // from then on a finger is no tool, as a hand rests on the screen
  let using = null; // the pointer that uses the tool
  let moving = null; // the pointer that moves the picture
  const screen = (event) => ({ x: event.offsetX, y: event.offsetY });
  const apart = () => {
    const [a, b] = [...fingers.values()];
    return Math.hypot(a.x - b.x, a.y - b.y);
  };
  const begin = (event) => {
    const by = event.buttons & ERASER ? erasing() : tool();
    using = { id: event.pointerId, by };
    by.down(toTile(screen(event)));
  };
  const stop = () => {
    using?.by.cancel();
    using = null;
  };
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    const lines = event.deltaMode === 1 ? 30 : 1;
    zoom(Math.exp(-event.deltaY * lines * (event.ctrlKey ? 0.01 : 0.0015)), screen(event));
  }, { passive: false });
  canvas.addEventListener("contextmenu", (event) => event.preventDefault());
  canvas.addEventListener("pointerdown", (event) => {
    canvas.focus();
    canvas.setPointerCapture(event.pointerId);
    penSeen ||= event.pointerType === "pen";
    if (event.pointerType === "touch") {
      fingers.set(event.pointerId, screen(event));
      if (fingers.size > 1) return stop();
    }
    const pans = tool().pans || event.button === 1 || event.button === 2 || (event.pointerType === "touch" && penSeen);
    if (pans && !(event.buttons & ERASER)) {
      moving = { id: event.pointerId, ...screen(event) };
      canvas.classList.add("moving");
    } else if (event.button === 0 || event.buttons & ERASER) begin(event);
    redraw();
  });
  canvas.addEventListener("pointermove", (event) => {
    const now = screen(event);
    if (fingers.size > 1 && fingers.has(event.pointerId)) {
      const [before, distance] = [fingers.get(event.pointerId), apart()];
      fingers.set(event.pointerId, now);
      camera.pan((now.x - before.x) / fingers.size, (now.y - before.y) / fingers.size);
      if (fingers.size === 2 && distance > 0) camera.zoom(apart() / distance, now);
      redraw();
    } else if (moving?.id === event.pointerId) {
      pan(now.x - moving.x, now.y - moving.y);
      Object.assign(moving, now);
    } else if (using?.id === event.pointerId) {
      const all = event.getCoalescedEvents?.() ?? [];
      for (const one of all.length ? all : [event]) using.by.move(toTile(screen(one)));
    } else tool().hover(toTile(now));
    pointed(now);
  });
  const up = (event) => {
    fingers.delete(event.pointerId);
    if (moving?.id === event.pointerId) {
      moving = null;
      canvas.classList.remove("moving");
    }
    if (using?.id === event.pointerId) {
      if (event.type === "pointercancel") stop();
      else using.by.up(toTile(screen(event)));
      using = null;
    }
    redraw();
  };
  canvas.addEventListener("pointerup", up);
  canvas.addEventListener("pointercancel", up);
  canvas.addEventListener("dblclick", () => tool().close());
  canvas.addEventListener("pointerleave", () => pointed(null));
}
