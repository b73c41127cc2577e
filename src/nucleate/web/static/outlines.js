// A tile of labels: outlines as a picture where nuclei are small on the screen, as lines where they are large.

export const FOUND = "#ffd400";
export const TRUE = "#ff4fd8";
export const SELECTED = "#00e5ff";
const CYAN = [0, 229, 255, 255];
const WASH = [0, 229, 255, 70]; // inside the selected nucleus

export class LabelTile {
  // `labels` has a margin of one label around the tile; `ends` says whether the image ends with it, {right, bottom};
  // `colour` is that of its outlines, as "#rrggbb".
  constructor(labels, side, ends, colour) {
    this.labels = labels;
    this.side = side;
    this.ends = ends;
    this.colour = [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16)).concat(255);
    this.numbers = new Set(labels);
    this.canvas = null;
    this.paintedFor = 0;
  }

  // The label in a row and column of the tile.
  at(row, column) {
    return this.labels[(row + 1) * (this.side + 2) + column + 1];
  }

  // A picture of the outlines: the outermost pixels of each nucleus.
  picture(selected) {
    const mine = this.numbers.has(selected) ? selected : 0;
    if (this.canvas && this.paintedFor === mine) return this.canvas;
    const { labels, side } = this;
    const across = side + 2;
    const image = new ImageData(side, side);
    for (let row = 0; row < side; row++) {
      for (let column = 0, at = (row + 1) * across + 1; column < side; column++, at++) {
        const label = labels[at];
        if (label === 0) continue;
        const edge = labels[at - 1] !== label || labels[at + 1] !== label || labels[at - across] !== label || labels[at + across] !== label;
        if (edge) image.data.set(label === mine ? CYAN : this.colour, 4 * (row * side + column));
        else if (label === mine) image.data.set(WASH, 4 * (row * side + column));
      }
    }
    this.canvas ??= new OffscreenCanvas(side, side);
    this.canvas.getContext("2d").putImageData(image, 0, 0);
    this.paintedFor = mine;
    return this.canvas;
  }

  // All outlines as lines along the edges of labels, in labels from the tile's corner.
  get lines() {
    this.path ??= this.trace((a, b) => a !== b);
    return this.path;
  }

  // The outline of one nucleus; null where it is not in this tile.
  outline(number) {
    if (!this.numbers.has(number)) return null;
    return this.trace((a, b) => (a === number) !== (b === number));
  }

  // Edges on the border between two tiles belong to the right and the lower one, but those that the image ends with.
  trace(differ) {
    const path = new Path2D();
    const { side, ends } = this;
    for (let row = 0; row < side + (ends.bottom ? 1 : 0); row++) {
      for (let column = 0, begin = -1; column <= side; column++) {
        const edge = column < side && differ(this.at(row - 1, column), this.at(row, column));
        if (edge && begin < 0) begin = column;
        if (!edge && begin >= 0) {
          path.moveTo(begin, row);
          path.lineTo(column, row);
          begin = -1;
        }
      }
    }
    for (let column = 0; column < side + (ends.right ? 1 : 0); column++) {
      for (let row = 0, begin = -1; row <= side; row++) {
        const edge = row < side && differ(this.at(row, column - 1), this.at(row, column));
        if (edge && begin < 0) begin = row;
        if (!edge && begin >= 0) {
          path.moveTo(column, begin);
          path.lineTo(column, row);
          begin = -1;
        }
      }
    }
    return path;
  }
}
