// Draws the slide, and over it the tile: what is said of it, what the model suggests, and the mark of the tool.

import { contours } from "./contours.js";
import { UNKNOWN } from "./board.js";
import { Painter } from "./painter.js";

const SAID = "#2ee6a0";
const OPEN = "#ffd400";
const POINTED = "#00e5ff";
const UNDER = "rgba(0, 0, 0, 0.65)"; // below the lines, so that they show on any ground
const OUTSIDE = "rgba(10, 12, 16, 0.62)";
const GREY = packed([140, 150, 170, 44]); // over what is not known
const FILLS = [[46, 230, 160], [64, 156, 255], [186, 104, 255], [255, 138, 76], [120, 220, 60], [255, 96, 160]];
const INKS = FILLS.map((colour) => packed([...colour, 72]));

export class Drawing {
  constructor(canvas, camera) {
    this.painter = new Painter(canvas, camera);
    this.camera = camera;
    this.drawn = 0; // the version of the board whose outlines are shown
    this.layers = {};
  }

  // Nothing is open.
  clear() {
    this.painter.clear();
  }

  // `live` is the stroke that is being drawn. Until it ends, the outlines of what was there before stay as they are.
  draw({ slide, box, board, entropy, pointed, mark, live, shown, shade }) {
    const { painter, camera } = this;
    const { pencil } = painter;
    painter.clear();
    painter.drawPicture(slide, { look: (tile) => shade.of(tile) });
    if (this.board !== board) this.begin(board);
    this.fillRows(board);
    const place = painter.place(box.x, box.y, box.x + box.width, box.y + box.height);
    pencil.save();
    pencil.imageSmoothingEnabled = false;
    pencil.globalAlpha = shown.opacity;
    if (entropy && shown.entropy) pencil.drawImage(entropy, ...place);
    if (!shown.hidden && shown.fog) pencil.drawImage(this.fog, ...place);
    if (!shown.hidden && shown.said) pencil.drawImage(this.fill, ...place);
    pencil.restore();
    this.drawFrame(...place);
    if (!live || !this.drawn) [this.drawn, this.drawnOpen] = [board.version, board.openVersion];
    const view = [camera.x, camera.y, camera.scale, painter.ratio, painter.canvas.width, painter.canvas.height].join();
    const alpha = Math.min(1, shown.opacity + 0.15);
    if (!shown.hidden) {
      this.over("fog", shown.fog, alpha, `${view},${this.drawn}`, box, (ink) => ink(fogPath(board), "#aab4c8", 0.9, [1.5, 4]));
      this.over("open", shown.open, alpha, `${view},${this.drawnOpen}`, box, (ink) => ink(pathOf(board, "open"), OPEN, 1.6, [6, 4]));
      this.over("said", shown.said, alpha, `${view},${this.drawn}`, box, (ink) => ink(pathOf(board, "labels"), SAID, 1.8));
    }
    pencil.save();
    const ink = this.inkOn(pencil, box);
    if (live?.number) ink(contours(board.labels, board.width, board.height, live.number), SAID, 1.8);
    if (pointed && !shown.hidden) ink(this.around(board, pointed), POINTED, 2.2, pointed.open ? [6, 4] : []);
    if (mark) this.drawMark(mark, ink);
    pencil.restore();
  }

  begin(board) {
    const { width, height } = board;
    Object.assign(this, { board, drawn: 0, highlight: null });
    [this.fill, this.fog] = [new OffscreenCanvas(width, height), new OffscreenCanvas(width, height)];
    for (const layer of Object.values(this.layers)) layer.key = "";
    board.forgetAll();
  }

  // Lines that are drawn once, and shown until what they are drawn from has another key.
  over(name, shown, alpha, key, box, paint) {
    if (!shown) return;
    const { canvas, pencil } = this.painter;
    const layer = (this.layers[name] ??= { canvas: new OffscreenCanvas(1, 1), key: "" });
    if (layer.key !== key) {
      layer.key = key;
      Object.assign(layer.canvas, { width: canvas.width, height: canvas.height }); // which clears it
      paint(this.inkOn(layer.canvas.getContext("2d"), box));
      layer.bitmap?.close();
      layer.bitmap = layer.canvas.transferToImageBitmap(); // which is drawn faster than a canvas
    }
    pencil.save();
    pencil.setTransform(1, 0, 0, 1, 0, 0);
    pencil.globalAlpha = alpha;
    pencil.drawImage(layer.bitmap, 0, 0);
    pencil.restore();
  }

  // What draws a path in pixels of the tile, with a width and dashes in those of the screen.
  inkOn(pencil, box) {
    const { camera, painter } = this;
    const corner = camera.toScreen({ x: box.x, y: box.y });
    const scale = camera.scale * painter.ratio;
    pencil.setTransform(scale, 0, 0, scale, corner.x * painter.ratio, corner.y * painter.ratio);
    pencil.lineJoin = "round";
    return (path, colour, line, dash = []) => {
      for (const [ink, more] of [[UNDER, 1.6], [colour, 0]]) {
        pencil.strokeStyle = ink;
        pencil.lineWidth = (line + more) / camera.scale;
        pencil.setLineDash(dash.map((length) => length / camera.scale));
        pencil.stroke(path);
      }
    };
  }

  // The colours of the rows that changed.
  fillRows(board) {
    const { top, bottom } = board.takeDirty();
    if (bottom < top) return;
    this.highlight = null;
    const { width, labels } = board;
    const [fill, fog] = [0, 1].map(() => new ImageData(width, bottom - top + 1));
    const [fillInk, fogInk] = [fill, fog].map(({ data }) => new Uint32Array(data.buffer));
    for (let to = 0, at = top * width; to < fillInk.length; to++, at++) {
      const label = labels[at];
      if (label > 0) fillInk[to] = INKS[label % INKS.length];
      else if (label === UNKNOWN) fogInk[to] = GREY;
    }
    this.fill.getContext("2d").putImageData(fill, 0, top);
    this.fog.getContext("2d").putImageData(fog, 0, top);
  }

  around(board, { said, open }) {
    const key = `${said ?? -open} ${board.openVersion}`;
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
  drawMark({ circle, points, closed, corners, cursor, colour = "#ffffff" }, ink) {
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
    ink(path, colour, 1.4, corners ? [5, 4] : []);
    if (!cursor) return;
    const cross = new Path2D();
    const arm = 10 / this.camera.scale;
    for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
      cross.moveTo(cursor.x + (dx * arm) / 3, cursor.y + (dy * arm) / 3);
      cross.lineTo(cursor.x + dx * arm, cursor.y + dy * arm);
    }
    ink(cross, "#ffffff", 1.6);
  }
}

function pathOf(board, what) {
  return contours(board[what], board.width, board.height);
}

function fogPath({ labels, width, height }) {
  const unknown = new Uint8Array(labels.length);
  let known = false;
  for (let at = 0; at < labels.length; at++) {
    if (labels[at] === UNKNOWN) unknown[at] = 1;
    else known = true;
  }
  return known ? contours(unknown, width, height) : new Path2D();
}

function packed([red, green, blue, alpha]) {
  return new Uint32Array(new Uint8Array([red, green, blue, alpha]).buffer)[0];
}
