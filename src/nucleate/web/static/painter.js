// Draws the slide and what was found in it on the canvas.

import { FOUND, SELECTED } from "./outlines.js";

const LINES = 2; // canvas pixels for one label: from here on outlines are lines
const UNDER = "rgba(0, 0, 0, 0.6)"; // below the lines, so that they show on any ground

export class Painter {
  constructor(canvas, camera) {
    this.canvas = canvas;
    this.camera = camera;
    this.pencil = canvas.getContext("2d");
    this.ratio = 1; // canvas pixels for one of the screen
  }

  clear() {
    const { canvas, camera, pencil } = this;
    const { width, height } = canvas.getBoundingClientRect();
    this.ratio = window.devicePixelRatio;
    const [across, down] = [width, height].map((side) => Math.round(side * this.ratio));
    if (canvas.width !== across || canvas.height !== down) Object.assign(canvas, { width: across, height: down });
    camera.screen = { width, height };
    pencil.setTransform(1, 0, 0, 1, 0, 0);
    pencil.clearRect(0, 0, across, down);
  }

  // The tiles of a grid that are on the screen, those in the middle first. The grid begins at (left, top) of the slide,
  // its tiles span `side` pixels of the slide, and it has so many rows and columns.
  onScreen(left, top, side, rows, columns) {
    const { camera } = this;
    const box = camera.box;
    const first = { row: Math.floor((box.top - top) / side), column: Math.floor((box.left - left) / side) };
    const last = { row: Math.floor((box.bottom - top) / side), column: Math.floor((box.right - left) / side) };
    const found = [];
    for (let row = Math.max(0, first.row); row <= Math.min(rows - 1, last.row); row++) {
      for (let column = Math.max(0, first.column); column <= Math.min(columns - 1, last.column); column++) {
        const away = Math.hypot(left + (column + 0.5) * side - camera.x, top + (row + 0.5) * side - camera.y);
        found.push({ row, column, away, left: left + column * side, top: top + row * side });
      }
    }
    return found.sort((a, b) => a.away - b.away);
  }

  // Where a part of the slide lies on the canvas, on whole pixels, so that neighbours meet without a gap.
  place(left, top, right, bottom) {
    const { camera, ratio } = this;
    const first = camera.toScreen({ x: left, y: top });
    const last = camera.toScreen({ x: right, y: bottom });
    const [x, y] = [Math.round(first.x * ratio), Math.round(first.y * ratio)];
    return [x, y, Math.round(last.x * ratio) - x, Math.round(last.y * ratio) - y];
  }

  // Draws a layer that is a picture. Its `place` says where it lies on the slide: `origin` and `shape`, (y, x) and
  // (height, width) in pixels of its own, of which each spans `downsample` of the slide. `look` makes of a tile what is
  // to be shown.
  drawPicture({ place, tiles }, { shown = true, opacity = 1, look = (tile) => tile }) {
    const { camera, pencil, ratio } = this;
    const size = camera.scale * place.downsample * ratio; // canvas pixels for one of the picture
    const level = Math.min(Math.max(Math.floor(Math.log2(1 / size) + 0.01), 0), place.depth);
    const span = 2 ** level * place.downsample;
    const [top, left, height, width] = [...place.origin, ...place.shape].map((length) => length * place.downsample);
    const side = place.tile * span;
    pencil.imageSmoothingEnabled = size < 2;
    pencil.save();
    pencil.globalAlpha = opacity;
    pencil.beginPath();
    pencil.rect(...this.place(left, top, left + width, top + height));
    pencil.clip();
    tiles.begin();
    const rows = shown ? Math.ceil(height / side) : 0;
    for (const at of this.onScreen(left, top, side, rows, Math.ceil(width / side))) {
      const tile = tiles.get(`${level}/${at.row}/${at.column}`);
      if (tile) {
        const to = this.place(at.left, at.top, at.left + tile.width * span, at.top + tile.height * span);
        pencil.drawImage(look(tile), ...to);
      } else this.drawCoarser(place, tiles, look, level, at);
    }
    tiles.end();
    pencil.restore();
  }

  // In the place of a tile that has not come, its part of a coarser one.
  drawCoarser(place, tiles, look, level, { row, column, left, top }) {
    const side = place.tile * 2 ** level * place.downsample;
    for (let up = 1; level + up <= place.depth; up++) {
      const tile = tiles.peek(`${level + up}/${row >> up}/${column >> up}`);
      if (!tile) continue;
      const part = place.tile / 2 ** up;
      const x = (column % 2 ** up) * part;
      const y = (row % 2 ** up) * part;
      const [width, height] = [Math.min(part, tile.width - x), Math.min(part, tile.height - y)];
      if (width <= 0 || height <= 0) return;
      const to = this.place(left, top, left + (side * width) / part, top + (side * height) / part);
      this.pencil.drawImage(look(tile), x, y, width, height, ...to);
      return;
    }
  }

  // Draws the outlines of a layer of labels; false where they would be too small to be seen. `line` is their width on
  // the screen.
  drawOutlines({ place, tiles, colour }, { shown, opacity, selected = 0, line }) {
    const { camera, pencil, ratio } = this;
    tiles.begin();
    const size = camera.scale * place.downsample * ratio; // canvas pixels for one label
    const level = Math.max(0, Math.floor(Math.log2(1 / size) + 0.01));
    if (shown && level <= place.outlineDepth) {
      const span = 2 ** level * place.downsample;
      const [height, width] = place.shape.map((side) => Math.ceil(side / (place.tile * 2 ** level)));
      const [top, left] = place.origin.map((begin) => begin * place.downsample);
      const here = this.onScreen(left, top, place.tile * span, height, width)
        .map((at) => ({ ...at, tile: tiles.get(`${level}/${at.row}/${at.column}`) }))
        .filter(({ tile }) => tile);
      pencil.save();
      pencil.globalAlpha = opacity;
      if (size >= LINES) this.drawLines(here, span, { colour, line, selected });
      else {
        for (const { tile, left, top } of here) {
          const to = this.place(left, top, left + place.tile * span, top + place.tile * span);
          pencil.drawImage(tile.picture(selected), ...to);
        }
      }
      pencil.restore();
    }
    tiles.end();
    return level <= place.outlineDepth;
  }

  drawLines(tiles, span, { colour, line, selected }) {
    const { camera, pencil, ratio } = this;
    const scale = camera.scale * span * ratio;
    const along = (colour, width, pathOf) => {
      pencil.strokeStyle = colour;
      pencil.lineWidth = (width * ratio) / scale;
      pencil.lineCap = "round";
      for (const { tile, left, top } of tiles) {
        const path = pathOf(tile);
        if (!path) continue;
        const at = camera.toScreen({ x: left, y: top });
        pencil.setTransform(scale, 0, 0, scale, at.x * ratio, at.y * ratio);
        pencil.stroke(path);
      }
    };
    along(UNDER, line + 1.6, (tile) => tile.lines);
    along(colour, line, (tile) => tile.lines);
    if (selected) along(SELECTED, 3, (tile) => tile.outline(selected));
  }

  // The border of the region that was segmented, where it is not the whole slide.
  drawRegion(image) {
    const { pencil, ratio } = this;
    const [top, left, height, width] = [...image.origin, ...image.shape].map((length) => length * image.downsample);
    const missing = Math.max(top, left, image.height - height, image.width - width);
    if (missing <= image.downsample) return; // what a level of the pyramid may lack at its ends
    pencil.save();
    pencil.strokeStyle = FOUND;
    pencil.lineWidth = ratio;
    pencil.setLineDash([6 * ratio, 4 * ratio]);
    pencil.strokeRect(...this.place(left, top, left + width, top + height));
    pencil.restore();
  }
}
