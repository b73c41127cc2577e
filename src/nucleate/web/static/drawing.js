// Draws the slide, and over it the tile: what is said of it, what the model suggests, and the mark of the tool.

import { contours } from "./contours.js";
import { UNKNOWN } from "./board.js";
import { Painter } from "./painter.js";

const SAID = "#2ee6a0";
const OPEN = "#ffd400";
const POINTED = "#00e5ff";
const UNDER = "rgba(0, 0, 0, 0.65)"; // below the lines, so that they show on any ground
const OUTSIDE = "rgba(10, 12, 16, 0.62)";
const FOG = [140, 150, 170, 44]; // over what is not known
const FILLS = [[46, 230, 160], [64, 156, 255], [186, 104, 255], [255, 138, 76], [120, 220, 60], [255, 96, 160]];

export class Drawing {
  constructor(canvas, camera) {
    this.painter = new Painter(canvas, camera);
    this.camera = camera;
    this.drawn = -1; // the version of the board whose pictures are made
  }

  // Nothing is open.
  clear() {
    this.painter.clear();
  }

  draw({ slide, box, board, entropy, pointed, mark, shown, shade }) {
    const { painter, camera } = this;
    const { pencil, ratio } = painter;
    painter.clear();
    painter.drawPicture(slide, { look: (tile) => shade.of(tile) });
    this.make(board);
    const [left, top, width, height] = painter.place(box.x, box.y, box.x + box.width, box.y + box.height);
    pencil.save();
    pencil.imageSmoothingEnabled = false;
    pencil.globalAlpha = shown.opacity;
    if (entropy && shown.entropy) pencil.drawImage(entropy, left, top, width, height);
    if (!shown.hidden) {
      if (shown.fog) pencil.drawImage(this.fog, left, top, width, height);
      if (shown.said) pencil.drawImage(this.fill, left, top, width, height);
    }
    pencil.restore();
    this.drawFrame(left, top, width, height);
    pencil.save();
    const corner = camera.toScreen({ x: box.x, y: box.y });
    const scale = camera.scale * ratio;
    pencil.setTransform(scale, 0, 0, scale, corner.x * ratio, corner.y * ratio);
    pencil.lineJoin = "round";
    const stroke = (path, colour, line, dash = []) => {
      for (const [ink, more] of [[UNDER, 1.6], [colour, 0]]) {
        pencil.strokeStyle = ink;
        pencil.lineWidth = (line + more) / camera.scale;
        pencil.setLineDash(dash.map((length) => length / camera.scale));
        pencil.stroke(path);
      }
    };
    pencil.globalAlpha = Math.min(1, shown.opacity + 0.15);
    if (!shown.hidden && shown.fog) stroke(this.fogPath, "#aab4c8", 0.9, [1.5, 4]);
    if (!shown.hidden && shown.open) stroke(this.openPath, OPEN, 1.6, [6, 4]);
    if (!shown.hidden && shown.said) stroke(this.saidPath, SAID, 1.8);
    pencil.globalAlpha = 1;
    if (pointed && !shown.hidden) stroke(this.around(board, pointed), POINTED, 2.2, pointed.open ? [6, 4] : []);
    if (mark) this.drawMark(mark, stroke);
    pencil.restore();
  }

  // The pictures of the labels, made again where these have changed.
  make(board) {
    if (this.board === board && this.drawn === board.version) return;
    const { width, height, labels } = board;
    if (this.board !== board) {
      [this.fill, this.fog] = [new OffscreenCanvas(width, height), new OffscreenCanvas(width, height)];
    }
    [this.board, this.drawn, this.highlight] = [board, board.version, null];
    const [fill, fog] = [new ImageData(width, height), new ImageData(width, height)];
    const [fillInk, fogInk] = [fill, fog].map(({ data }) => new Uint32Array(data.buffer));
    const inks = FILLS.map((colour) => packed([...colour, 72]));
    const grey = packed(FOG);
    for (let at = 0; at < labels.length; at++) {
      const label = labels[at];
      if (label > 0) fillInk[at] = inks[label % inks.length];
      else if (label === UNKNOWN) fogInk[at] = grey;
    }
    this.fill.getContext("2d").putImageData(fill, 0, 0);
    this.fog.getContext("2d").putImageData(fog, 0, 0);
    this.saidPath = contours(labels, width, height);
    const unknown = labels.map((label) => (label === UNKNOWN ? 1 : 0));
    this.fogPath = unknown.includes(0) ? contours(unknown, width, height) : new Path2D();
    this.openPath = contours(board.open, width, height);
  }

  around(board, { said, open }) {
    const key = said ?? -open;
    if (this.highlight?.key !== key) {
      const path = contours(said ? board.labels : board.open, board.width, board.height, said ?? open);
      this.highlight = { key, path };
    }
    return this.highlight.path;
  }

  // What is beside the tile is darker.
  drawFrame(left, top, width, height) {
    const { canvas, pencil, ratio } = this.painter;
    const around = new Path2D();
    around.rect(0, 0, canvas.width, canvas.height);
    around.rect(left, top, width, height);
    pencil.fillStyle = OUTSIDE;
    pencil.fill(around, "evenodd");
    pencil.strokeStyle = "rgba(255, 255, 255, 0.85)";
    pencil.lineWidth = ratio;
    pencil.strokeRect(left - ratio / 2, top - ratio / 2, width + ratio, height + ratio);
  }

  // What the tool is about to do, in pixels of the tile.
  drawMark({ circle, points, closed, corners, cursor, colour = "#ffffff" }, stroke) {
    const path = new Path2D();
    if (circle) path.arc(circle.x, circle.y, circle.radius, 0, 2 * Math.PI);
    if (points?.length) {
      path.moveTo(points[0].x, points[0].y);
      for (const { x, y } of points.slice(1)) path.lineTo(x, y);
      if (closed) path.closePath();
    }
    if (corners) {
      const [a, b] = corners;
      path.rect(Math.min(a.x, b.x), Math.min(a.y, b.y), Math.abs(a.x - b.x), Math.abs(a.y - b.y));
    }
    stroke(path, colour, 1.4, corners ? [5, 4] : []);
    if (!cursor) return;
    const cross = new Path2D();
    const arm = 10 / this.camera.scale;
    for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
      cross.moveTo(cursor.x + (dx * arm) / 3, cursor.y + (dy * arm) / 3);
      cross.lineTo(cursor.x + dx * arm, cursor.y + dy * arm);
    }
    stroke(cross, "#ffffff", 1.6);
  }
}

function packed([red, green, blue, alpha]) {
  return new Uint32Array(new Uint8Array([red, green, blue, alpha]).buffer)[0];
}
