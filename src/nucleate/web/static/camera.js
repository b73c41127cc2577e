// Which part of the slide the screen shows. Slide coordinates are pixels of the whole slide, screen ones CSS pixels.

const LARGEST = 40; // screen pixels for one of the slide

export class Camera {
  constructor() {
    this.x = 0; // in the middle of the screen
    this.y = 0;
    this.scale = 1; // screen pixels for one of the slide
    this.screen = { width: 1, height: 1 };
    this.slide = { width: 1, height: 1 };
  }

  get smallest() {
    const { screen, slide } = this;
    return Math.min(screen.width / slide.width, screen.height / slide.height, 1);
  }

  fit() {
    const { screen, slide } = this;
    this.scale = Math.min(screen.width / slide.width, screen.height / slide.height, LARGEST);
    this.x = slide.width / 2;
    this.y = slide.height / 2;
  }

  // Show a part of the slide, with a margin.
  frame({ x, y, width, height }) {
    this.scale = Math.min((0.94 * this.screen.width) / width, (0.94 * this.screen.height) / height, LARGEST);
    this.x = x + width / 2;
    this.y = y + height / 2;
  }

  toSlide(at) {
    return {
      x: this.x + (at.x - this.screen.width / 2) / this.scale,
      y: this.y + (at.y - this.screen.height / 2) / this.scale,
    };
  }

  toScreen(at) {
    return {
      x: (at.x - this.x) * this.scale + this.screen.width / 2,
      y: (at.y - this.y) * this.scale + this.screen.height / 2,
    };
  }

  // The part of the slide that is on the screen.
  get box() {
    const first = this.toSlide({ x: 0, y: 0 });
    const last = this.toSlide({ x: this.screen.width, y: this.screen.height });
    return { left: first.x, top: first.y, right: last.x, bottom: last.y };
  }

  // Zoom so that the point of the slide that is at `at` on the screen stays there.
  zoom(factor, at = { x: this.screen.width / 2, y: this.screen.height / 2 }) {
    const under = this.toSlide(at);
    this.scale = Math.min(Math.max(this.scale * factor, this.smallest / 2), LARGEST);
    const now = this.toSlide(at);
    this.pan((now.x - under.x) * this.scale, (now.y - under.y) * this.scale);
  }

  // Move what is shown by so many screen pixels; some of the slide stays in the middle.
  pan(x, y) {
    this.x = Math.min(Math.max(this.x - x / this.scale, 0), this.slide.width);
    this.y = Math.min(Math.max(this.y - y / this.scale, 0), this.slide.height);
  }

  show(at, scale) {
    this.scale = Math.min(Math.max(this.scale, scale), LARGEST);
    this.x = at.x;
    this.y = at.y;
  }
}
