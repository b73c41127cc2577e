// The page: opens images, and answers the mouse, the fingers and the keyboard.

import { Camera } from "./camera.js";
import { LabelTile } from "./outlines.js";
import { Painter } from "./painter.js";
import { Panel } from "./panel.js";
import { Tiles } from "./tiles.js";

const byId = (id) => document.getElementById(id);
const canvas = byId("slide");
const camera = new Camera();
const painter = new Painter(canvas, camera);
const panel = new Panel((number) => select(number, true));
let image = null; // what the server says of it, and its number in the list
let selected = 0;
let pictures;
let labels;
let due = false;

async function fetched(address, signal) {
  const answer = await fetch(address, { signal });
  if (answer.ok) return answer;
  const { error } = await answer.json().catch(() => ({}));
  throw new Error(error ?? `The server answered ${answer.status}.`);
}

function redraw() {
  if (due) return;
  due = true;
  requestAnimationFrame(() => {
    due = false;
    draw();
  });
}

async function open(number) {
  canvas.setAttribute("aria-busy", "true");
  pictures?.clear();
  labels?.clear();
  image = null;
  selected = 0;
  panel.clear();
  const address = `api/images/${number}`;
  try {
    const about = await (await fetched(address)).json();
    if (number !== Number(byId("images").value)) return; // another was chosen meanwhile
    image = { ...about, address };
  } catch (error) {
    byId("notice").textContent = error.message;
    canvas.setAttribute("aria-busy", "false");
    redraw();
    return;
  }
  pictures = new Tiles(async (key, signal) => {
    return createImageBitmap(await (await fetched(`${address}/tiles/${key}`, signal)).blob());
  }, 400, redraw);
  labels = new Tiles(async (key, signal) => {
    const data = await (await fetched(`${address}/labels/${key}`, signal)).arrayBuffer();
    const [level, row, column] = key.split("/").map(Number);
    const side = image.tile * 2 ** level;
    const ends = { bottom: (row + 1) * side >= image.shape[0], right: (column + 1) * side >= image.shape[1] };
    return new LabelTile(new Uint32Array(data), image.tile, ends);
  }, 150, redraw);
  camera.slide = { width: image.width, height: image.height };
  camera.fit();
  panel.describe(image);
  document.title = `${byId("images").selectedOptions[0].textContent} – Nucleate`;
  redraw();
}

function draw() {
  painter.clear();
  if (!image) return;
  const shown = image.outlines && byId("outlines").checked;
  painter.drawSlide(image, pictures);
  const outlined = painter.drawOutlines(image, labels, { shown, opacity: byId("opacity").value / 100, selected });
  painter.drawRegion(image);
  panel.showScale(camera, image);
  const problem = pictures.problem ?? labels.problem;
  let notice = "";
  if (problem) notice = problem.message;
  else if (!image.outlines) notice = "No label image was written: predict with --format tif to see outlines.";
  else if (shown && !outlined) notice = "Zoom in to see the outlines.";
  if (byId("notice").textContent !== notice) byId("notice").textContent = notice;
  canvas.setAttribute("aria-busy", String(pictures.busy || labels.busy));
  Object.assign(canvas.dataset, { x: camera.x, y: camera.y, scale: camera.scale });
}

// Select the nucleus at a place on the screen, if there is one.
async function selectAt(at) {
  if (!image?.outlines) return;
  const opened = image;
  const on = camera.toSlide(at);
  const [y, x] = [on.y, on.x].map((way, axis) => Math.floor(way / image.downsample - image.origin[axis]));
  if (y < 0 || x < 0 || y >= image.shape[0] || x >= image.shape[1]) return select(0);
  const [row, column] = [y, x].map((way) => Math.floor(way / image.tile));
  const tile = await labels.need(`0/${row}/${column}`);
  if (image === opened && tile) select(tile.at(y - row * image.tile, x - column * image.tile));
}

async function select(number, show = false) {
  const opened = image;
  selected = number;
  redraw();
  if (number === 0) return panel.clear();
  let row = {};
  try {
    row = await (await fetched(`${image.address}/nuclei/${number}`)).json();
  } catch (error) {
    if (image !== opened || selected !== number) return;
    selected = 0;
    return panel.refuse(error.message);
  }
  if (image !== opened || selected !== number) return;
  panel.show(number, row);
  if (show && row.y !== undefined) {
    camera.show({ x: (Number(row.x) + 0.5) * image.downsample, y: (Number(row.y) + 0.5) * image.downsample }, 4 / image.downsample);
    redraw();
  }
}

function zoom(factor, at) {
  camera.zoom(factor, at);
  redraw();
}

function pan(x, y) {
  camera.pan(x, y);
  redraw();
}

function whole() {
  camera.fit();
  redraw();
}

function toggle() {
  byId("outlines").checked = !byId("outlines").checked;
  redraw();
}

const KEYS = {
  ArrowLeft: () => pan(80, 0),
  ArrowRight: () => pan(-80, 0),
  ArrowUp: () => pan(0, 80),
  ArrowDown: () => pan(0, -80),
  "+": () => zoom(1.5),
  "=": () => zoom(1.5),
  "-": () => zoom(1 / 1.5),
  0: whole,
  o: toggle,
  O: toggle,
  Enter: () => selectAt({ x: camera.screen.width / 2, y: camera.screen.height / 2 }),
  Escape: () => select(0),
};

function listen() {
  window.addEventListener("keydown", (event) => {
    const meant = event.target === canvas || event.target === document.body; // and no field or button
    if (!meant || event.ctrlKey || event.metaKey || event.altKey || !KEYS[event.key] || !image) return;
    event.preventDefault();
    KEYS[event.key]();
  });
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    const lines = event.deltaMode === 1 ? 30 : 1;
    zoom(Math.exp(-event.deltaY * lines * (event.ctrlKey ? 0.01 : 0.0015)), { x: event.offsetX, y: event.offsetY });
  }, { passive: false });
  byId("in").addEventListener("click", () => zoom(1.5));
  byId("out").addEventListener("click", () => zoom(1 / 1.5));
  byId("fit").addEventListener("click", whole);
  for (const id of ["outlines", "opacity"]) byId(id).addEventListener("input", redraw);
  byId("images").addEventListener("change", (event) => open(Number(event.target.value)));
  new ResizeObserver(redraw).observe(canvas);
  listenToPointers();
}

// One pointer drags, or clicks where it stays; two zoom.
function listenToPointers() {
  const down = new Map();
  let moved = 0;
  const at = (event) => ({ x: event.offsetX, y: event.offsetY });
  const apart = () => {
    const [a, b] = down.values();
    return Math.hypot(a.x - b.x, a.y - b.y);
  };
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

async function start() {
  const names = await (await fetched("api/images")).json();
  names.forEach((name, number) => byId("images").add(new Option(name, number)));
  byId("chooser").hidden = names.length < 2;
  listen();
  await open(0);
}

start().catch((error) => {
  byId("notice").textContent = error.message;
});
