// Which pixels of a tile a mark covers. Points are in pixels from the tile's corner; a pixel is named by its place in
// the order of rows.

// The pixels whose middles lie within `radius` of the way from `a` to `b`.
export function capsule({ width, height }, a, b, radius, visit) {
  const [dx, dy] = [b.x - a.x, b.y - a.y];
  const long = dx * dx + dy * dy;
  const reach = Math.max(radius, 0.5);
  const top = Math.max(0, Math.floor(Math.min(a.y, b.y) - reach));
  const bottom = Math.min(height - 1, Math.floor(Math.max(a.y, b.y) + reach));
  const left = Math.max(0, Math.floor(Math.min(a.x, b.x) - reach));
  const right = Math.min(width - 1, Math.floor(Math.max(a.x, b.x) + reach));
  for (let row = top; row <= bottom; row++) {
    for (let column = left; column <= right; column++) {
      const [px, py] = [column + 0.5 - a.x, row + 0.5 - a.y];
      const along = long ? Math.min(1, Math.max(0, (px * dx + py * dy) / long)) : 0;
      if ((px - along * dx) ** 2 + (py - along * dy) ** 2 <= reach * reach) visit(row * width + column);
    }
  }
}

// The pixels of a line, each touching the next by an edge or a corner (Bresenham, 1965).
export function line({ width, height }, a, b, visit) {
  let [x, y] = [Math.floor(a.x), Math.floor(a.y)];
  const [endX, endY] = [Math.floor(b.x), Math.floor(b.y)];
  const [dx, dy] = [Math.abs(endX - x), -Math.abs(endY - y)];
  const [stepX, stepY] = [x < endX ? 1 : -1, y < endY ? 1 : -1];
  for (let error = dx + dy; ; ) {
    if (x >= 0 && y >= 0 && x < width && y < height) visit(y * width + x);
    if (x === endX && y === endY) return;
    const twice = 2 * error;
    if (twice >= dy) [error, x] = [error + dy, x + stepX];
    if (twice <= dx) [error, y] = [error + dx, y + stepY];
  }
}

// The pixels whose middles lie inside a closed line, by the even-odd rule.
export function polygon({ width, height }, points, visit) {
  const rows = points.map(({ y }) => y);
  const last = Math.min(height - 1, Math.floor(Math.max(...rows)));
  for (let row = Math.max(0, Math.floor(Math.min(...rows))); row <= last; row++) {
    const y = row + 0.5;
    const crossed = [];
    points.forEach((a, at) => {
      const b = points[(at + 1) % points.length];
      if (a.y <= y !== b.y <= y) crossed.push(a.x + ((y - a.y) / (b.y - a.y)) * (b.x - a.x));
    });
    crossed.sort((a, b) => a - b);
    for (let pair = 0; pair + 1 < crossed.length; pair += 2) {
      const end = Math.min(width - 1, Math.ceil(crossed[pair + 1] - 0.5) - 1);
      for (let column = Math.max(0, Math.ceil(crossed[pair] - 0.5)); column <= end; column++) visit(row * width + column);
    }
  }
}

// The pixels that a box from corner to corner touches.
export function box({ width, height }, a, b, visit) {
  const span = (one, other, most) => {
    const [first, last] = [Math.floor(Math.min(one, other)), Math.floor(Math.max(one, other))];
    return [Math.max(0, first), Math.min(most - 1, last)];
  };
  const [[top, bottom], [left, right]] = [span(a.y, b.y, height), span(a.x, b.x, width)];
  for (let row = top; row <= bottom; row++) for (let column = left; column <= right; column++) visit(row * width + column);
}

// The pixels beside one, by its edges.
export function* beside({ width, height }, at) {
  const column = at % width;
  if (column > 0) yield at - 1;
  if (column < width - 1) yield at + 1;
  if (at >= width) yield at - width;
  if (at < width * (height - 1)) yield at + width;
}

// The pieces of a set of pixels that hang together by edges, as lists, the largest first.
export function pieces(size, pixels) {
  const left = new Set(pixels);
  const found = [];
  for (const first of pixels) {
    if (!left.delete(first)) continue;
    const piece = [first];
    for (let next = 0; next < piece.length; next++) {
      for (const at of beside(size, piece[next])) if (left.delete(at)) piece.push(at);
    }
    found.push(piece);
  }
  return found.sort((a, b) => b.length - a.length);
}
