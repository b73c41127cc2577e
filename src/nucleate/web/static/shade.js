// Brightness and contrast of what is shown. No measurement depends on them.

export class Shade {
  constructor() {
    this.set(0, 0);
  }

  // Both from -100 to 100. Brightness bends the scale (a power of the value), so that it hides nothing; contrast
  // stretches it about the middle grey.
  set(brightness, contrast) {
    const power = 2 ** (-brightness / 50);
    const factor = contrast < 0 ? 1 + contrast / 100 : 1 + contrast / 25;
    this.plain = brightness === 0 && contrast === 0;
    this.table = Uint8ClampedArray.from({ length: 256 }, (_, value) => ((value / 255) ** power * 255 - 127.5) * factor + 127.5);
    this.made = new WeakMap(); // of the tiles that were shown since
  }

  // The tile as it is to be shown.
  of(tile) {
    if (this.plain) return tile;
    if (!this.made.has(tile)) this.made.set(tile, this.make(tile));
    return this.made.get(tile);
  }

  make(tile) {
    const canvas = new OffscreenCanvas(tile.width, tile.height);
    const pencil = canvas.getContext("2d", { willReadFrequently: true });
    pencil.drawImage(tile, 0, 0);
    const image = pencil.getImageData(0, 0, tile.width, tile.height);
    const { data } = image;
    for (let at = 0; at < data.length; at++) if (at % 4 < 3) data[at] = this.table[data[at]];
    pencil.putImageData(image, 0, 0);
    return canvas;
  }
}
