// What lies over one another in one image: the slide, the entropy, the true outlines and those that were found.

import { FOUND, LabelTile, TRUE } from "./outlines.js";
import { Tiles } from "./tiles.js";

const KEPT_ALIVE = 50_000; // characters that a browser still sends when the page is left

// `body` is JSON as text.
export async function fetched(address, signal, method = "GET", body = undefined) {
  const headers = body === undefined ? {} : { "Content-Type": "application/json" };
  const options = { signal, method, body, headers, keepalive: method === "POST" && (body ?? "").length < KEPT_ALIVE };
  const answer = await fetch(address, options).catch((error) => {
    if (error.name === "AbortError") throw error;
    throw new Error(`The server does not answer: is ${document.body.dataset.command} still running?`);
  });
  if (answer.ok) return answer;
  const text = await answer.text();
  let said = text;
  try {
    said = JSON.parse(text).error ?? text;
  } catch {
    // it is the sentence itself
  }
  throw new Error(said || `The server answered ${answer.status}.`);
}

export class Layers {
  // `image` is what the server says of it and its address; `changed` is called when a tile has come.
  constructor(image, changed) {
    const { tile, downsample, origin, shape } = image;
    this.image = image;
    this.slide = { place: { tile, depth: image.depth, origin: [0, 0], shape: [image.height, image.width], downsample: 1 } };
    this.slide.tiles = this.pictures("tiles", changed);
    const outlines = { tile, outlineDepth: image.outlineDepth };
    if (image.outlines) this.found = this.labels("labels", { ...outlines, downsample, origin, shape }, FOUND, changed);
    if (image.truth) this.true = this.labels("truth", { ...outlines, ...image.truth }, TRUE, changed);
    if (image.entropy) this.entropy = { place: { tile, ...image.entropy }, tiles: this.pictures("entropy", changed) };
  }

  pictures(kind, changed) {
    const load = async (key, signal) => {
      return createImageBitmap(await (await fetched(`${this.image.address}/${kind}/${key}`, signal)).blob());
    };
    return new Tiles(load, 400, changed);
  }

  labels(kind, place, colour, changed) {
    const load = async (key, signal) => {
      const data = await (await fetched(`${this.image.address}/${kind}/${key}`, signal)).arrayBuffer();
      const [level, row, column] = key.split("/").map(Number);
      const side = place.tile * 2 ** level;
      const ends = { bottom: (row + 1) * side >= place.shape[0], right: (column + 1) * side >= place.shape[1] };
      return new LabelTile(new Uint32Array(data), place.tile, ends, colour);
    };
    return { place, colour, tiles: new Tiles(load, 150, changed) };
  }

  get all() {
    return [this.slide, this.entropy, this.true, this.found].filter((layer) => layer);
  }

  get busy() {
    return this.all.some(({ tiles }) => tiles.busy);
  }

  // Why some tile cannot be shown; undefined where all is well.
  get problem() {
    return this.all.map(({ tiles }) => tiles.problem).find((problem) => problem);
  }

  // The number of the nucleus that was found at a place of the slide, 0 where there is none.
  async numberAt(at) {
    if (!this.found) return 0;
    const { place, tiles } = this.found;
    const [y, x] = [at.y, at.x].map((way, axis) => Math.floor(way / place.downsample - place.origin[axis]));
    if (y < 0 || x < 0 || y >= place.shape[0] || x >= place.shape[1]) return 0;
    const [row, column] = [y, x].map((way) => Math.floor(way / place.tile));
    const tile = await tiles.need(`0/${row}/${column}`);
    return tile ? tile.at(y - row * place.tile, x - column * place.tile) : 0;
  }

  clear() {
    for (const { tiles } of this.all) tiles.clear();
  }
}
