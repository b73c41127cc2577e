// The page: opens images, draws them, and knows which nucleus is selected.

import { Camera } from "./camera.js";
import { listenToButtons, listenToKeys, listenToPointers } from "./controls.js";
import { Layers, fetched } from "./layers.js";
import { NucleiList } from "./nuclei.js";
import { Painter } from "./painter.js";
import { Panel } from "./panel.js";
import * as picture from "./picture.js";
import { Shade } from "./shade.js";

const PLAIN = { brightness: 0, contrast: 0, opacity: 90 };
const byId = (id) => document.getElementById(id);
const canvas = byId("slide");
const camera = new Camera();
const painter = new Painter(canvas, camera);
const shade = new Shade();
const panel = new Panel((number) => select(number, true));
const list = new NucleiList((number) => select(number, true));
let image = null; // what the server says of it, and its address
let layers = null;
let selected = 0;
let due = false;
let notes = []; // about the folder
let refused = ""; // why the image cannot be opened

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
  layers?.clear();
  image = layers = null;
  [selected, refused] = [0, ""];
  panel.forget();
  list.open(null);
  byId("previous").disabled = number === 0;
  byId("next").disabled = number === byId("images").options.length - 1;
  document.title = `${byId("images").options[number].textContent} – Nucleate`;
  const address = `api/images/${number}`;
  let about;
  try {
    about = await (await fetched(address)).json();
  } catch (error) {
    about = null;
    if (number === byId("images").selectedIndex) refused = error.message;
  }
  if (number !== byId("images").selectedIndex) return; // another was chosen meanwhile
  panel.note([...notes, ...(about?.notes ?? [])]);
  if (about) {
    image = { ...about, address };
    layers = new Layers(image, redraw);
    camera.slide = { width: image.width, height: image.height };
    camera.fit();
    panel.describe(image);
    list.open(image);
  }
  byId("truth").parentElement.hidden = !layers?.true;
  byId("entropy").parentElement.hidden = !layers?.entropy;
  redraw();
}

function draw() {
  painter.clear();
  const on = (id) => byId(id).checked;
  let outlined = true;
  if (image) {
    const opacity = byId("opacity").value / 100;
    painter.drawPicture(layers.slide, { look: (tile) => shade.of(tile) });
    if (layers.entropy) painter.drawPicture(layers.entropy, { shown: on("entropy"), opacity });
    const truth = Boolean(layers.true) && on("truth");
    // The truth is wider and below, so that it shows where both are the same.
    if (layers.true) outlined = painter.drawOutlines(layers.true, { shown: truth, opacity, line: 5.4 }) || !truth;
    if (layers.found) {
      const shown = on("outlines");
      outlined = painter.drawOutlines(layers.found, { shown, opacity, selected, line: 1.6 }) || !shown;
    }
    painter.drawRegion(image);
    panel.showScale(camera, image);
  }
  const notice = noticed(outlined);
  if (byId("notice").textContent !== notice) byId("notice").textContent = notice;
  canvas.setAttribute("aria-busy", String(layers ? layers.busy : !refused));
  Object.assign(canvas.dataset, { x: camera.x, y: camera.y, scale: camera.scale });
}

function noticed(outlined) {
  if (!image) return refused;
  if (layers.problem) return layers.problem.message;
  if (!image.outlines) return "No label image was written: predict with --format tif to see outlines.";
  return outlined ? "" : "Zoom in to see the outlines.";
}

// Select the nucleus at a place on the screen, if there is one.
async function selectAt(at) {
  const opened = image;
  if (!layers?.found) return;
  const number = await layers.numberAt(camera.toSlide(at));
  if (image === opened) select(number);
}

async function select(number, show = false) {
  if (!image) return;
  const opened = image;
  selected = number;
  list.mark(number);
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

function step(by) {
  const number = byId("images").selectedIndex + by;
  if (number < 0 || number >= byId("images").options.length) return;
  byId("images").selectedIndex = number;
  open(number);
}

function shadeAgain() {
  shade.set(Number(byId("brightness").value), Number(byId("contrast").value));
  redraw();
}

async function save() {
  if (!image) return;
  while (due || layers?.busy) await new Promise((done) => requestAnimationFrame(done));
  if (image) await picture.save(canvas, byId("images").selectedOptions[0].textContent, painter.ratio);
}

const actions = {
  camera, redraw, open, select, selectAt, step, save, shadeAgain,
  zoom(factor, at) {
    camera.zoom(factor, at);
    redraw();
  },
  pan(x, y) {
    camera.pan(x, y);
    redraw();
  },
  whole() {
    camera.fit();
    redraw();
  },
  toggle(id) {
    byId(id).checked = !byId(id).checked;
    redraw();
  },
  reset() {
    for (const [id, value] of Object.entries(PLAIN)) byId(id).value = value;
    shadeAgain();
  },
  help() {
    byId("help").showModal();
  },
};

async function start() {
  actions.reset(); // as browsers remember what sliders showed
  const names = await (await fetched("api/images")).json();
  notes = await (await fetched("api/notes")).json();
  names.forEach((name, number) => byId("images").add(new Option(name, number)));
  byId("chooser").hidden = names.length < 2;
  listenToKeys(canvas, actions);
  listenToButtons(actions);
  listenToPointers(canvas, camera, actions);
  new ResizeObserver(redraw).observe(canvas);
  await open(0);
}

start().catch((error) => {
  refused = error.message;
  redraw();
});
