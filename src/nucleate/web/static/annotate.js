// The page of nucleate annotate: opens tiles, keeps what is drawn, and asks for the next one.

import { Board, runsOf } from "./board.js";
import { Camera } from "./camera.js";
import { showCounts, showReport, showSaved, showTile } from "./dashboard.js";
import { Drawing } from "./drawing.js";
import * as edits from "./edits.js";
import { History } from "./history.js";
import { listenToKeys } from "./keys.js";
import { Layers, fetched } from "./layers.js";
import { listenToPointers } from "./pointer.js";
import { Shade } from "./shade.js";
import { Sync, labelsOf } from "./sync.js";
import { SIZES, makeTools } from "./tools.js";

const LOOK = 1000; // milliseconds between two looks at the server
const SAYING = 4000; // milliseconds that a notice stays
const PLAIN = { brightness: 0, contrast: 0, opacity: 85 };
const LAYERS = ["open", "said", "fog", "entropy", "hidden"];
const byId = (id) => document.getElementById(id);
const canvas = byId("slide");
const camera = new Camera();
const drawing = new Drawing(canvas, camera);
const shade = new Shade();
let now = null; // the tile that is open: { tile, box, picture, board, sync, history, layers, version, bits, entropy }
let pointer = null; // on the screen
let cross = null; // of the keyboard, in pixels of the tile
let pressed = false; // whether the keyboard draws
let due = false;
let noticed = 0;
let counted = null; // the version of the board that was counted
let lately = null; // the stroke that the last frame showed while it was drawn
let going = false; // to the next tile

const work = {
  radius: 5,
  get scale() {
    return camera.scale;
  },
  begin: (name) => new edits.Stroke(now.board, name),
  commit(stroke) {
    const changes = stroke.changes();
    if (!changes.length) return redraw();
    if (stroke.tool !== "undo" && stroke.tool !== "redo") now.history.add(changes);
    now.sync.add(stroke.tool, runsOf(changes.map(([at, , value]) => [at, value])));
    now.board.changed();
    redraw();
  },
  say: notice,
};
const tools = makeTools(work);
let chosen = tools.brush;

function notice(text) {
  byId("notice").textContent = text;
  clearTimeout(noticed);
  if (text) noticed = setTimeout(() => (byId("notice").textContent = ""), SAYING);
}

function redraw() {
  if (due) return;
  due = true;
  requestAnimationFrame(() => {
    due = false;
    draw();
  });
}

function draw() {
  byId("scale").textContent = `${Math.round(100 * camera.scale)} %`;
  for (const id of ["undo", "redo"]) byId(id).disabled = !now?.history[id === "undo" ? "done" : "undone"].length;
  showSaved(now?.sync);
  if (!now) return drawing.clear();
  const shown = Object.fromEntries(LAYERS.map((id) => [id, byId(id).checked]));
  const at = where();
  const mark = chosen.mark(at) || {};
  if (cross) mark.cursor = cross;
  // A stroke that has ended is shown at once; in the frame after that, the outlines of everything.
  const live = chosen.live ?? lately;
  if (live && !chosen.live) redraw();
  lately = chosen.live;
  const pointed = live || chosen.busy || !at ? null : now.board.what(now.board.at(at));
  drawing.draw({ ...now, slide: now.layers.slide, pointed, mark, shade, live, shown: { ...shown, opacity: byId("opacity").value / 100 } });
  if (counted !== now.board.version && !live) {
    counted = now.board.version;
    showCounts(now.board.count());
  }
  canvas.setAttribute("aria-busy", String(now.layers.busy || going));
  Object.assign(canvas.dataset, { x: camera.x, y: camera.y, scale: camera.scale, tile: now.tile, revision: now.sync.revision });
  Object.assign(canvas.dataset, { strokes: now.history.done.length, waiting: now.sync.waiting.length, version: now.version });
}

// Where the tool is, in pixels of the tile: at the cross of the keyboard or at the pointer.
function where() {
  return cross ?? (pointer && toTile(pointer));
}

function toTile(at) {
  if (!now) return at;
  const { x, y } = camera.toSlide(at);
  return { x: x - now.box.x, y: y - now.box.y };
}

async function open(tile) {
  const about = await (await fetched(`api/tiles/${tile}`)).json();
  const [labels, revision] = await labelsOf(tile);
  now?.sync.end();
  now?.layers.clear();
  const [y, x, height, width] = about.box;
  const board = new Board({ width, height, tab: about.tab }, labels);
  const history = History.of(about.edits);
  const image = { ...about.picture, address: `api/images/${about.image}` };
  now = { tile, board, history, picture: about.picture, box: { x, y, width, height }, version: -1, bits: null, entropy: null };
  now.layers = new Layers(image, redraw);
  const drawingNow = () => Boolean(chosen.stroke);
  now.sync = new Sync({ tile, revision }, board, { told: redraw, changed: redraw, drawing: drawingNow });
  [cross, pressed, counted] = [null, false, null];
  window.history.replaceState(null, "", `#${tile}`);
  document.title = `${about.picture.name} – Nucleate`;
  camera.slide = { width: image.width, height: image.height };
  const screen = canvas.getBoundingClientRect();
  camera.screen = { width: screen.width, height: screen.height };
  camera.frame(now.box);
  showTile(now);
  redraw();
  await guess();
}

// Ask for what the model finds, if it is newer than what is shown.
async function guess() {
  const opened = now;
  const answer = await fetched(`api/tiles/${opened.tile}/guess?version=${opened.version}`);
  if (answer.status !== 200) return;
  const labels = new Int32Array(await answer.arrayBuffer());
  const heat = await (await fetched(`api/tiles/${opened.tile}/entropy`)).blob();
  const entropy = heat.size ? await createImageBitmap(heat) : null;
  if (now !== opened || chosen.stroke) return; // it is asked for again
  opened.version = Number(answer.headers.get("Nucleate-Version"));
  opened.bits = Number(answer.headers.get("Nucleate-Bits"));
  opened.entropy = entropy;
  opened.board.suggest(labels);
  showTile(opened);
  redraw();
}

const pause = (time) => new Promise((done) => setTimeout(done, time));

// The tile is done as it is; the model learns from it while the next one is shown.
async function next() {
  if (going) return;
  going = true;
  byId("next").disabled = true;
  try {
    if (now) {
      chosen.cancel();
      while (now.sync.waiting.length) {
        if (now.sync.problem) throw new Error(now.sync.problem);
        await now.sync.send();
      }
      await fetched(`api/tiles/${now.tile}/finish`, undefined, "POST");
    }
    const { tile } = await (await fetched("api/next", undefined, "POST")).json();
    if (tile === null) notice("Every tile was shown. Choose one of the earlier tiles to go on with it.");
    else await open(tile);
  } catch (error) {
    notice(error.message);
  }
  going = false;
  byId("next").disabled = false;
  redraw();
}

async function look() {
  for (;;) {
    await pause(LOOK);
    if (document.hidden) continue;
    try {
      const report = await (await fetched("api/report")).json();
      showReport(report, (tile) => open(tile).catch((error) => notice(error.message)));
      if (now && (now.version < report.corrections || now.version < 0)) await guess();
      await now?.sync.look();
    } catch (error) {
      notice(error.message);
    }
  }
}

// A stroke that is done at once.
function once(name, change) {
  if (!now || chosen.busy) return;
  const stroke = work.begin(name);
  if (change(stroke) !== false) work.commit(stroke);
}

function onPointed(change) {
  const at = where();
  const what = at && now?.board.what(now.board.at(at));
  if (what) return change(what);
  notice("Point at a nucleus first, or go to one with the keys , and .");
}

const actions = {
  toTile, redraw,
  tool: () => (now ? chosen : tools.hand),
  erasing: () => tools.eraser,
  choose(name, again = false) {
    chosen.cancel();
    pressed = false;
    if (name === "region") tools.region.unknown = again && chosen === tools.region && !tools.region.unknown;
    chosen = tools[name];
    for (const button of document.querySelectorAll("#tools [data-tool]")) {
      button.setAttribute("aria-pressed", String(button.dataset.tool === name));
    }
    byId("region-kind").textContent = tools.region.unknown ? "Unknown" : "Finished";
    canvas.dataset.tool = name;
    byId("size-field").hidden = !["brush", "eraser"].includes(name);
    redraw();
  },
  resize(by) {
    work.radius = Math.min(SIZES.most, Math.max(SIZES.least, work.radius + by * Math.max(1, Math.round(work.radius / 6))));
    byId("size").value = work.radius;
    redraw();
  },
  undo: () => once("undo", (stroke) => now.history.undo(stroke)),
  redo: () => once("redo", (stroke) => now.history.redo(stroke)),
  accept: () => onPointed((what) => what.open && once("accept", (stroke) => void edits.adopt(stroke, what.open))),
  acceptAll: () => once("accept-all", edits.acceptAll),
  remove: () => onPointed((what) => once("delete", (stroke) => edits.remove(stroke, what))),
  next,
  cancel() {
    chosen.cancel();
    [cross, pressed] = [null, false];
    redraw();
  },
  close() {
    chosen.close();
    redraw();
  },
  zoom(factor, at) {
    camera.zoom(factor, at);
    redraw();
  },
  pan(x, y) {
    camera.pan(x, y);
    redraw();
  },
  whole() {
    if (now) camera.frame(now.box);
    redraw();
  },
  pointed(at) {
    if (pressed) return;
    [pointer, cross] = [at, null];
    redraw();
  },
  toggle(id) {
    byId(id).checked = !byId(id).checked;
    redraw();
  },
  // The next or the previous open suggestion.
  step(by) {
    if (!now) return;
    const all = now.board.middles(now.board.open);
    if (!all.length) return notice("There is no open suggestion.");
    const at = where();
    const here = at ? all.findIndex(({ number }) => number === now.board.open[now.board.at(at)]) : -1;
    const { number } = all[here < 0 ? (by > 0 ? 0 : all.length - 1) : (here + by + all.length) % all.length];
    const pixels = now.board.pixels({ open: number });
    const inside = pixels[Math.floor(pixels.length / 2)];
    actions.putCross({ x: (inside % now.board.width) + 0.5, y: Math.floor(inside / now.board.width) + 0.5 });
  },
  putCross(at) {
    const { width, height } = now.board;
    cross = { x: Math.min(width - 0.5, Math.max(0.5, at.x)), y: Math.min(height - 0.5, Math.max(0.5, at.y)) };
    const seen = camera.toScreen({ x: cross.x + now.box.x, y: cross.y + now.box.y });
    const outside = seen.x < 20 || seen.y < 20 || seen.x > camera.screen.width - 20 || seen.y > camera.screen.height - 20;
    if (outside) Object.assign(camera, { x: cross.x + now.box.x, y: cross.y + now.box.y });
    redraw();
  },
  moveCross(x, y) {
    if (!now) return;
    const { width, height } = now.board;
    const from = where() ?? { x: width / 2, y: height / 2 };
    actions.putCross({ x: Math.floor(from.x) + 0.5 + x, y: Math.floor(from.y) + 0.5 + y });
    if (pressed) chosen.move(cross);
    else chosen.hover(cross);
  },
  press() {
    if (!now) return;
    if (!cross) actions.moveCross(0, 0);
    const holds = ["brush", "eraser", "split", "merge", "region"].includes(canvas.dataset.tool);
    if (pressed) chosen.up(cross);
    else chosen.down(cross);
    if (!holds) chosen.up(cross);
    pressed = holds && !pressed;
    redraw();
  },
  help: () => byId("help").showModal(),
  reset() {
    for (const [id, value] of Object.entries(PLAIN)) byId(id).value = value;
    reshade();
  },
};

function reshade() {
  shade.set(Number(byId("brightness").value), Number(byId("contrast").value));
  redraw();
}

function listen() {
  const clicks = {
    undo: actions.undo, redo: actions.redo, "accept-all": actions.acceptAll, next, ask: actions.help, reset: actions.reset,
    in: () => actions.zoom(1.5), out: () => actions.zoom(1 / 1.5), fit: actions.whole,
  };
  for (const [id, action] of Object.entries(clicks)) byId(id).addEventListener("click", action);
  for (const button of document.querySelectorAll("#tools [data-tool]")) {
    button.addEventListener("click", () => actions.choose(button.dataset.tool, true));
  }
  for (const id of [...LAYERS, "opacity"]) byId(id).addEventListener("input", redraw);
  for (const id of ["brightness", "contrast"]) byId(id).addEventListener("input", reshade);
  byId("size").addEventListener("input", () => {
    work.radius = Number(byId("size").value);
    redraw();
  });
  listenToKeys(canvas, actions);
  listenToPointers(canvas, camera, actions);
  new ResizeObserver(redraw).observe(canvas);
}

async function start() {
  actions.reset();
  actions.choose("brush");
  listen();
  const asked = location.hash.slice(1);
  if (/^[0-9a-f]{24}$/.test(asked)) await open(asked).catch(() => {});
  if (!now) await next();
  look();
}

start().catch((error) => notice(error.message));
