// The tools. Each is told where a pointer goes down, moves and comes up, in pixels of the tile, whether that is a mouse,
// a pen, a finger or the keyboard.

import * as edits from "./edits.js";

export const SIZES = { least: 1, most: 60 };

// A tool works on `work`: `begin(name)` gives a stroke, `commit(stroke)` keeps it, `say(text)` tells the person.
class Tool {
  constructor(work) {
    this.work = work;
  }

  get busy() {
    return Boolean(this.stroke || this.points);
  }

  // The stroke that is being drawn; `number` is the nucleus that grows.
  get live() {
    return this.stroke ? { number: this.number ?? 0 } : null;
  }

  hover() {}
  close() {}

  cancel() {
    this.stroke?.revert();
    this.stroke = this.points = null;
  }

  mark(at) {
    return at && { cursor: null };
  }
}

class Brush extends Tool {
  down(at) {
    this.stroke = this.work.begin(this.name);
    this.last = at;
    this.start(at);
    this.draw(at);
  }

  start(at) {
    this.number = edits.take(this.stroke, this.stroke.board.at(at)) || this.stroke.board.newNumber();
  }

  draw(at) {
    edits.paint(this.stroke, this.number, this.last, at, this.work.radius);
  }

  move(at) {
    if (!this.stroke) return;
    this.draw(at);
    this.last = at;
  }

  up() {
    if (this.stroke) this.work.commit(this.stroke);
    this.stroke = null;
  }

  get name() {
    return "brush";
  }

  mark(at) {
    return at && { circle: { ...at, radius: Math.max(this.work.radius, 0.5) }, colour: this.colour };
  }

  get colour() {
    return "#ffffff";
  }
}

class Eraser extends Brush {
  start() {
    this.number = 0;
  }

  draw(at) {
    edits.erase(this.stroke, this.last, at, this.work.radius);
  }

  get name() {
    return "eraser";
  }

  get colour() {
    return "#ff8080";
  }
}

// A line that is drawn, and means something once it ends.
class Line extends Tool {
  down(at) {
    this.points = [at];
  }

  move(at) {
    this.points?.push(at);
  }

  up() {
    if (!this.points) return;
    const stroke = this.work.begin(this.name);
    this.end(stroke, this.points.length > 1 ? this.points : [this.points[0], this.points[0]]);
    this.points = null;
    this.work.commit(stroke);
  }

  mark() {
    return this.points && { points: this.points, colour: this.colour };
  }
}

class Split extends Line {
  name = "split";
  colour = "#ff8080";

  end(stroke, points) {
    if (!edits.split(stroke, points)) this.work.say("Draw the line across a nucleus, from one side to the other.");
  }
}

class Merge extends Line {
  name = "merge";
  colour = "#80d0ff";

  end(stroke, points) {
    if (edits.merge(stroke, points) < 2) this.work.say("Draw a line from one nucleus into the next.");
  }
}

// Corners by clicks, or a line by dragging; it is closed at its first point, by Enter or by a double click.
class Polygon extends Tool {
  name = "polygon";

  down(at) {
    const near = this.points?.length > 2 && this.apart(at, this.points[0]) < 8 / this.work.scale;
    if (near) return this.close();
    this.points ??= [];
    this.points.push(at);
    [this.begin, this.held] = [at, true];
  }

  move(at) {
    if (this.held && this.apart(at, this.points.at(-1)) > 3 / this.work.scale) this.points.push(at);
    else if (!this.held) this.next = at;
  }

  hover(at) {
    this.next = at;
  }

  up(at) {
    if (!this.held) return;
    this.held = false;
    if (this.points.length > 2 && this.apart(at, this.begin) > 0 && this.dragged) this.close();
  }

  get dragged() {
    return this.points.indexOf(this.begin) < this.points.length - 2;
  }

  apart(a, b) {
    return Math.hypot(a.x - b.x, a.y - b.y);
  }

  close() {
    const { points } = this;
    this.cancel();
    if (!points || points.length < 3) return;
    const stroke = this.work.begin(this.name);
    edits.outline(stroke, points);
    this.work.commit(stroke);
  }

  cancel() {
    this.held = false;
    super.cancel();
  }

  mark() {
    return this.points && { points: this.held || !this.next ? this.points : [...this.points, this.next], closed: true };
  }
}

class Fill extends Tool {
  name = "fill";

  down(at) {
    const stroke = this.work.begin(this.name);
    if (!edits.fill(stroke, at)) this.work.say("There is no hole that one nucleus encloses.");
    this.work.commit(stroke);
  }

  move() {}
  up() {}
}

// A box of which all is right as it is shown, or of which nothing is known.
class Region extends Tool {
  name = "region";
  unknown = false;

  down(at) {
    this.points = [at, at];
  }

  move(at) {
    if (this.points) this.points[1] = at;
  }

  up() {
    if (!this.points) return;
    const stroke = this.work.begin(this.unknown ? "unknown" : "finished");
    (this.unknown ? edits.forget : edits.finish)(stroke, ...this.points);
    this.points = null;
    this.work.commit(stroke);
  }

  mark() {
    return this.points && { corners: this.points, colour: this.unknown ? "#ff8080" : "#2ee6a0" };
  }
}

// Moves the picture: what it does is done by those who listen to the pointer.
class Hand extends Tool {
  name = "hand";
  pans = true;

  down() {}
  move() {}
  up() {}
}

export function makeTools(work) {
  const kinds = { hand: Hand, brush: Brush, eraser: Eraser, polygon: Polygon, split: Split, merge: Merge, fill: Fill, region: Region };
  return Object.fromEntries(Object.entries(kinds).map(([name, Kind]) => [name, new Kind(work)]));
}
