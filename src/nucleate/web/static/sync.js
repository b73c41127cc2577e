// Sends every stroke to the server, in order, without keeping a person waiting. A stroke stays in this browser until
// the server says that it is on the disk; what another page drew in the same tile comes back with the answer.

import { write } from "./board.js";
import { fetched } from "./layers.js";

const AGAIN = [250, 500, 1000, 2000, 4000]; // milliseconds until a stroke is sent again
const PREFIX = "nucleate stroke";

export class Sync {
  // `told` is called when something was saved, or cannot be; `changed` when the labels are others; `drawing` says
  // whether a stroke is being drawn.
  constructor({ tile, revision }, board, { told, changed, drawing }) {
    Object.assign(this, { tile, revision, board, told, changed, drawing });
    this.waiting = this.kept();
    for (const { runs } of this.waiting) write(board.labels, runs);
    this.problem = "";
    this.ended = false;
    this.sending = null;
    if (this.waiting.length) this.send();
  }

  add(tool, runs) {
    const name = [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
    const stroke = { name, tool, runs, key: `${PREFIX} ${this.tile} ${Date.now()} ${String(order++).padStart(6, "0")} ${name}` };
    keep(stroke);
    this.waiting.push(stroke);
    this.send();
    this.told();
  }

  // The strokes of this tile that were not saved when the page was left.
  kept() {
    const keys = Object.keys(localStorage).filter((key) => key.startsWith(`${PREFIX} ${this.tile} `)).sort();
    return keys.map((key) => ({ key, ...JSON.parse(localStorage.getItem(key)) }));
  }

  send() {
    this.sending ??= this.sendAll().finally(() => (this.sending = null));
    return this.sending;
  }

  async sendAll() {
    for (let failed = 0; this.waiting.length; ) {
      const { name, tool, runs, key } = this.waiting[0];
      const body = JSON.stringify({ name, tool, runs, revision: this.revision });
      try {
        const answer = await (await fetched(`api/tiles/${this.tile}/strokes`, undefined, "POST", body)).json();
        await this.idle();
        this.waiting.shift();
        localStorage.removeItem(key);
        [failed, this.problem] = [0, ""];
        await this.learn(answer, name, runs);
      } catch (error) {
        this.problem = error.message;
        this.told();
        await new Promise((done) => setTimeout(done, AGAIN[Math.min(failed++, AGAIN.length - 1)]));
      }
      this.told();
    }
  }

  // Ask for what other pages drew.
  async look() {
    if (this.sending || this.waiting.length || this.ended) return;
    const answer = await (await fetched(`api/tiles/${this.tile}/since/${this.revision}`)).json();
    if (this.sending || this.waiting.length || this.ended) return;
    await this.idle();
    await this.learn(answer);
  }

  // Bring what the server has up to an answer of it, and put what is not saved on top.
  async learn({ revision, edits }, name = "", runs = []) {
    if (this.ended || revision === this.revision) return;
    const { board } = this;
    const alone = edits?.length === 1 && edits[0].name === name;
    if (alone) write(board.confirmed, runs);
    else if (edits) for (const edit of edits) write(board.confirmed, edit.runs);
    else [board.confirmed, revision] = await labelsOf(this.tile);
    this.revision = revision;
    if (alone) return;
    await this.idle();
    board.labels.set(board.confirmed);
    for (const stroke of this.waiting) write(board.labels, stroke.runs);
    board.forgetAll();
    board.changed();
    this.changed();
  }

  async idle() {
    while (this.drawing()) await new Promise((done) => setTimeout(done, 20));
  }

  // Another tile is opened; what waits is still sent.
  end() {
    this.ended = true;
  }
}

let order = 0;

function keep({ key, name, tool, runs }) {
  try {
    localStorage.setItem(key, JSON.stringify({ name, tool, runs }));
  } catch {
    // the browser keeps no more; the stroke waits in memory alone
  }
}

// The labels of a tile and their revision.
export async function labelsOf(tile) {
  const answer = await fetched(`api/tiles/${tile}/labels`);
  const revision = Number(answer.headers.get("Nucleate-Revision"));
  return [new Int32Array(await answer.arrayBuffer()), revision];
}
