// What the tools do to the labels of a tile. Each takes the stroke that it is a part of.

import { UNKNOWN } from "./board.js";
import * as raster from "./raster.js";

const CRUMB = 4; // pixels; what a cut leaves that is smaller stays with its neighbour

// The changes of one stroke; it is undone as one.
export class Stroke {
  constructor(board, tool) {
    Object.assign(this, { board, tool });
    this.before = new Map();
  }

  set(at, value) {
    const { labels } = this.board;
    if (labels[at] === value) return;
    if (!this.before.has(at)) this.before.set(at, labels[at]);
    labels[at] = value;
    this.board.touch(at);
  }

  // The pixels that are now something else, with what they were and what they are.
  changes() {
    const { labels } = this.board;
    return [...this.before].filter(([at, old]) => labels[at] !== old).map(([at, old]) => [at, old, labels[at]]);
  }

  revert() {
    for (const [at, old] of this.before) {
      this.board.labels[at] = old;
      this.board.touch(at);
    }
    this.board.changed();
  }
}

// Take a suggestion as a nucleus; gives its number.
export function adopt(stroke, open) {
  const number = stroke.board.newNumber();
  for (const at of stroke.board.pixels({ open })) stroke.set(at, number);
  stroke.board.changed();
  return number;
}

// The number of the nucleus at a pixel, which is taken if it is a suggestion; 0 where there is none.
export function take(stroke, at) {
  const what = stroke.board.what(at);
  return what?.open ? adopt(stroke, what.open) : what?.said ?? 0;
}

// The part of a nucleus that a brush draws from one point to the next; other nuclei stay as they are.
export function paint(stroke, number, a, b, radius) {
  const { board } = stroke;
  raster.capsule(board, a, b, radius, (at) => board.labels[at] <= 0 && stroke.set(at, number));
  board.changed();
}

// Nothing is a nucleus where the eraser was. Of a suggestion that it touches the rest is taken.
export function erase(stroke, a, b, radius) {
  const { board } = stroke;
  const under = [];
  raster.capsule(board, a, b, radius, (at) => under.push(at));
  for (const open of new Set(under.map((at) => board.open[at]).filter((number) => number > 0))) adopt(stroke, open);
  for (const at of under) stroke.set(at, 0);
  board.changed();
}

// A new nucleus inside a closed line, where no other is.
export function outline(stroke, points) {
  const { board } = stroke;
  const number = board.newNumber();
  raster.polygon(board, points, (at) => board.labels[at] <= 0 && stroke.set(at, number));
  board.changed();
}

// There is no nucleus: `what` is one that was said, or a suggestion.
export function remove(stroke, what) {
  for (const at of stroke.board.pixels(what)) stroke.set(at, 0);
  stroke.board.changed();
}

// All suggestions are right, and there are no other nuclei in the tile.
export function acceptAll(stroke) {
  const { board } = stroke;
  finish(stroke, { x: 0, y: 0 }, { x: board.width - 1, y: board.height - 1 });
}

// What a box shows is right: suggestions of which most lies in it are taken, and the rest of it is background.
export function finish(stroke, a, b) {
  const { board } = stroke;
  const inside = new Uint8Array(board.labels.length);
  raster.box(board, a, b, (at) => (inside[at] = 1));
  const share = new Map();
  board.open.forEach((number, at) => number > 0 && share.set(number, (share.get(number) ?? 0) + (inside[at] ? 1 : -1)));
  const numbers = new Map([...share].filter(([, more]) => more > 0).map(([number]) => [number, board.newNumber()]));
  const { open } = board;
  for (let at = 0; at < inside.length; at++) {
    if (numbers.has(open[at])) stroke.set(at, numbers.get(open[at]));
    else if (inside[at] && board.labels[at] === UNKNOWN && open[at] === 0) stroke.set(at, 0);
  }
  board.changed();
}

// Nothing is known of what is in a box.
export function forget(stroke, a, b) {
  raster.box(stroke.board, a, b, (at) => stroke.set(at, UNKNOWN));
  stroke.board.changed();
}

// The nuclei, said or suggested, on the way through some points, in the order of the way.
export function along(board, points) {
  const found = new Map();
  for (let at = 0; at + 1 < points.length; at++) {
    raster.line(board, points[at], points[at + 1], (pixel) => {
      const what = board.what(pixel);
      if (what) found.set(what.said ?? -what.open, what);
    });
  }
  return [...found.values()];
}

// Cut every nucleus that the way through some points crosses; gives how many were cut. The largest piece keeps the
// number, and the pixels of the cut go to the piece beside them.
export function split(stroke, points) {
  const { board } = stroke;
  const cut = new Set();
  for (let at = 0; at + 1 < points.length; at++) raster.line(board, points[at], points[at + 1], (pixel) => cut.add(pixel));
  let count = 0;
  for (const what of along(board, points)) {
    const all = board.pixels(what);
    const parts = raster.pieces(board, all.filter((at) => !cut.has(at))).filter((piece) => piece.length >= CRUMB);
    if (parts.length < 2) continue;
    count++;
    const numbers = new Map();
    parts.forEach((piece, part) => {
      const number = part === 0 && what.said ? what.said : board.newNumber();
      for (const at of piece) numbers.set(at, number);
    });
    for (let left = all.filter((at) => !numbers.has(at)), before = -1; left.length !== before; ) {
      before = left.length;
      const near = left.map((at) => [at, [...raster.beside(board, at)].find((other) => numbers.has(other))]);
      for (const [at, other] of near) if (other !== undefined) numbers.set(at, numbers.get(other));
      left = left.filter((at) => !numbers.has(at));
    }
    for (const [at, number] of numbers) stroke.set(at, number);
  }
  board.changed();
  return count;
}

// Make one nucleus of those on the way through some points; gives how many there were.
export function merge(stroke, points) {
  const { board } = stroke;
  const met = along(board, points);
  if (met.length < 2) return met.length;
  const number = met.find(({ said }) => said)?.said ?? board.newNumber();
  for (const pixels of met.map((what) => board.pixels(what))) for (const at of pixels) stroke.set(at, number);
  board.changed();
  return met.length;
}

// Fill the holes of the nucleus at a point, or the hole at it that one nucleus encloses; gives whether there was one.
export function fill(stroke, point) {
  const { board } = stroke;
  const begin = board.at(point);
  if (begin < 0) return false;
  const number = take(stroke, begin);
  return number ? fillHoles(stroke, number) : fillHole(stroke, begin);
}

function fillHole(stroke, begin) {
  const { board } = stroke;
  const hole = reached(board, [begin], (at) => board.what(at) === null);
  if (touchesBorder(board, hole)) return false;
  const around = new Map();
  for (const at of hole) {
    for (const next of raster.beside(board, at)) {
      const what = board.what(next);
      if (what) around.set(what.said ?? -what.open, next);
    }
  }
  if (around.size !== 1) return false;
  const number = take(stroke, [...around.values()][0]);
  for (const at of hole) stroke.set(at, number);
  board.changed();
  return true;
}

function fillHoles(stroke, number) {
  const { board } = stroke;
  const rest = [];
  for (let at = 0; at < board.labels.length; at++) if (board.labels[at] !== number) rest.push(at);
  const holes = raster.pieces(board, rest).filter((piece) => !touchesBorder(board, piece));
  for (const at of holes.flat()) if (board.labels[at] <= 0) stroke.set(at, number);
  board.changed();
  return holes.length > 0;
}

function reached(board, begin, may) {
  const found = new Set(begin);
  for (const at of found) for (const next of raster.beside(board, at)) if (!found.has(next) && may(next)) found.add(next);
  return [...found];
}

function touchesBorder({ width, height }, pixels) {
  return pixels.some((at) => {
    const column = at % width;
    return column === 0 || column === width - 1 || at < width || at >= width * (height - 1);
  });
}
