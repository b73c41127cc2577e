// What is said of one tile, and what the model suggests for it.

export const UNKNOWN = -1;
const TAB = 2 ** 16; // as on the server: the numbers that one page gives to new nuclei

export class Board {
  // `labels` are -1 unknown, 0 background, above 0 a nucleus each; `tab` is the page's own number.
  constructor({ width, height, tab }, labels) {
    Object.assign(this, { width, height });
    this.labels = labels;
    this.confirmed = labels.slice(); // what the server has
    this.last = tab * TAB;
    this.guessed = new Int32Array(labels.length); // what the model finds
    this.seen = null; // where suggestions are open
    this.version = this.openVersion = 0; // count changes, for those who draw
    this.forgetAll();
  }

  // A pixel has another label.
  touch(at) {
    if (this.guessed[at] > 0) this.reopen();
    const row = Math.floor(at / this.width);
    if (row < this.dirty.top) this.dirty.top = row;
    if (row > this.dirty.bottom) this.dirty.bottom = row;
  }

  // Other suggestions may be open.
  reopen() {
    this.seen = null;
    this.reopened = true;
  }

  // All pixels may have other labels.
  forgetAll() {
    this.reopen();
    this.dirty = { top: 0, bottom: this.height - 1 };
  }

  // The rows that changed since this was asked last.
  takeDirty() {
    const { dirty } = this;
    this.dirty = { top: Infinity, bottom: -1 };
    return dirty;
  }

  newNumber() {
    return ++this.last;
  }

  changed() {
    if (this.reopened) this.openVersion++;
    this.reopened = false;
    this.version++;
  }

  suggest(labels) {
    this.guessed = labels;
    this.reopen();
    this.changed();
  }

  // The suggestions that are open, as labels: where nothing is said, of those of which more than half is so.
  get open() {
    if (this.seen) return this.seen;
    const { guessed, labels } = this;
    let most = 0;
    for (let at = 0; at < guessed.length; at++) if (guessed[at] > most) most = guessed[at];
    const more = new Int32Array(most + 1);
    for (let at = 0; at < guessed.length; at++) if (guessed[at] > 0) more[guessed[at]] += labels[at] === UNKNOWN ? 1 : -1;
    this.seen = new Int32Array(guessed.length);
    for (let at = 0; at < guessed.length; at++) {
      if (guessed[at] > 0 && labels[at] === UNKNOWN && more[guessed[at]] > 0) this.seen[at] = guessed[at];
    }
    return this.seen;
  }

  // The place in the order of rows of a point; -1 outside the tile.
  at({ x, y }) {
    const [column, row] = [Math.floor(x), Math.floor(y)];
    return column < 0 || row < 0 || column >= this.width || row >= this.height ? -1 : row * this.width + column;
  }

  // What is at a pixel: {said: number} of a nucleus, {open: number} of a suggestion, or null.
  what(at) {
    if (at < 0) return null;
    if (this.labels[at] > 0) return { said: this.labels[at] };
    return this.open[at] > 0 ? { open: this.open[at] } : null;
  }

  // The pixels of what `what` gave.
  pixels({ said, open }) {
    const [from, number] = said ? [this.labels, said] : [this.open, open];
    const found = [];
    for (let at = 0; at < from.length; at++) if (from[at] === number) found.push(at);
    return found;
  }

  // Each nucleus with a pixel inside it, said or suggested, in the order of rows.
  middles(from) {
    const sums = new Map();
    for (let at = 0; at < from.length; at++) {
      if (from[at] <= 0) continue;
      const sum = sums.get(from[at]) ?? { number: from[at], count: 0, x: 0, y: 0 };
      sum.count++;
      sum.x += (at % this.width) + 0.5;
      sum.y += Math.floor(at / this.width) + 0.5;
      sums.set(from[at], sum);
    }
    return [...sums.values()].map(({ number, count, x, y }) => ({ number, x: x / count, y: y / count }));
  }

  // How much is said: nuclei, open suggestions, and the share of the pixels that is known.
  count() {
    let known = 0;
    for (let at = 0; at < this.labels.length; at++) if (this.labels[at] !== UNKNOWN) known++;
    return { nuclei: distinct(this.labels), open: distinct(this.open), known: known / this.labels.length };
  }
}

// How many numbers above 0 there are.
function distinct(labels) {
  const found = new Set();
  for (let at = 0, last = 0; at < labels.length; at++) {
    if (labels[at] === last) continue;
    last = labels[at];
    if (last > 0) found.add(last);
  }
  return found.size;
}

// Changes of pixels as runs: the first pixel, how many, and their label, one after the other.
export function runsOf(changes) {
  const runs = [];
  let [next, length] = [-1, 0];
  for (const [at, value] of [...changes].sort(([a], [b]) => a - b)) {
    if (at === next && runs.at(-1) === value) runs[runs.length - 2] = ++length;
    else {
      length = 1;
      runs.push(at, 1, value);
    }
    next = at + 1;
  }
  return runs;
}

export function write(labels, runs) {
  for (let at = 0; at < runs.length; at += 3) labels.fill(runs[at + 2], runs[at], runs[at] + runs[at + 1]);
}
