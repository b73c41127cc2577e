// Tiles that were fetched: as many as are kept, those that are not wanted any more are not waited for.

const AT_ONCE = 6; // as many connections as a browser opens to one server

export class Tiles {
  // `load(key, signal)` promises a tile; `changed` is called when one has come, or cannot come.
  constructor(load, capacity, changed) {
    this.load = load;
    this.capacity = capacity;
    this.changed = changed;
    this.held = new Map(); // the one used last is last
    this.coming = new Map();
    this.failed = new Map();
    this.wanted = new Set();
  }

  get busy() {
    return this.coming.size > 0;
  }

  // Between `begin` and `end` all tiles of one picture are asked for.
  begin() {
    this.wanted.clear();
  }

  // The tile, or undefined while it has not come; it is fetched, unless enough others are.
  get(key) {
    this.wanted.add(key);
    const tile = this.peek(key);
    if (tile === undefined && !this.failed.has(key) && !this.coming.has(key) && this.coming.size < AT_ONCE) this.fetch(key);
    return tile;
  }

  // The tile if it is there.
  peek(key) {
    const tile = this.held.get(key);
    if (tile !== undefined) {
      this.held.delete(key);
      this.held.set(key, tile);
    }
    return tile;
  }

  end() {
    for (const [key, { abort, needed }] of this.coming) if (!needed && !this.wanted.has(key)) abort.abort();
    for (const [key, tile] of this.held) {
      if (this.held.size <= this.capacity) break;
      if (this.wanted.has(key)) continue;
      this.held.delete(key);
      tile.close?.();
    }
  }

  // A promise of the tile, whatever the picture shows.
  async need(key) {
    const tile = this.peek(key);
    if (tile !== undefined) return tile;
    if (!this.coming.has(key)) this.fetch(key);
    const coming = this.coming.get(key);
    coming.needed = true;
    return coming.promise;
  }

  fetch(key) {
    const abort = new AbortController();
    const promise = this.load(key, abort.signal).then(
      (tile) => {
        this.held.set(key, tile);
        return tile;
      },
      (error) => {
        if (!abort.signal.aborted) this.failed.set(key, error);
      },
    ).finally(() => {
      this.coming.delete(key);
      this.changed();
    });
    this.coming.set(key, { abort, promise, needed: false });
  }

  // Why some tile that is wanted cannot come; undefined where all is well.
  get problem() {
    for (const key of this.wanted) if (this.failed.has(key)) return this.failed.get(key);
    return undefined;
  }

  clear() {
    for (const { abort } of this.coming.values()) abort.abort();
    for (const tile of this.held.values()) tile.close?.();
    this.held.clear();
    this.failed.clear();
  }
}
