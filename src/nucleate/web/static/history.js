// Undo and redo, a stroke at a time. Pixels that something else changed meanwhile, as another page may, are left alone.

const LEVELS = 500;

export class History {
  constructor() {
    [this.done, this.undone] = [[], []];
  }

  // `changes` are those of a stroke: the pixel, what it was, what it is.
  add(changes) {
    this.done.push(changes);
    if (this.done.length > LEVELS) this.done.shift();
    this.undone = [];
  }

  // Take the last stroke back through a new one; false where there is none.
  undo(stroke) {
    const changes = this.done.pop();
    if (!changes) return false;
    this.undone.push(changes);
    for (const [at, old, now] of changes) if (stroke.board.labels[at] === now) stroke.set(at, old);
    return true;
  }

  redo(stroke) {
    const changes = this.undone.pop();
    if (!changes) return false;
    this.done.push(changes);
    for (const [at, old, now] of changes) if (stroke.board.labels[at] === old) stroke.set(at, now);
    return true;
  }

  // What the server kept of the strokes before the page was loaded again.
  static of(edits) {
    const history = new History();
    for (const { tool, runs, before } of edits) {
      if (tool === "undo" && history.done.length) history.undone.push(history.done.pop());
      else if (tool === "redo" && history.undone.length) history.done.push(history.undone.pop());
      else if (tool !== "undo" && tool !== "redo") {
        const now = new Map(pixels(runs));
        history.add([...pixels(before)].map(([at, old]) => [at, old, now.get(at)]));
      }
    }
    return history;
  }
}

function* pixels(runs) {
  for (let run = 0; run < runs.length; run += 3) {
    for (let at = runs[run]; at < runs[run] + runs[run + 1]; at++) yield [at, runs[run + 2]];
  }
}
