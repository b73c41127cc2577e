// The outlines of labels as closed lines, so that they may be dashed.

// Ways: right, down, left, up. The pixels to the right and to the left of the way ahead, from the corner that was reached.
const ACROSS = [1, 0, -1, 0];
const DOWN = [0, 1, 0, -1];
const RIGHT_X = [0, -1, -1, 0];
const RIGHT_Y = [0, 0, -1, -1];
const LEFT_X = [0, 0, -1, -1];
const LEFT_Y = [-1, 0, 0, -1];

// A path around each label above 0, through the middles of the edges of its pixels; `only` one of them if it is given.
export function contours(labels, width, height, only = 0) {
  const path = new Path2D();
  const seen = new Uint8Array(labels.length); // pixels whose upper edge was gone along
  for (let y = 0, pixel = 0; y < height; y++) {
    for (let x = 0; x < width; x++, pixel++) {
      const label = labels[pixel];
      if (label <= 0 || seen[pixel] || (only && label !== only) || (y > 0 && labels[pixel - width] === label)) continue;
      follow(path, labels, width, height, x, y, seen);
    }
  }
  return path;
}

// Go round with the label on the right hand, from the upper edge of a pixel until that is reached again.
function follow(path, labels, width, height, beginX, beginY, seen) {
  const label = labels[beginY * width + beginX];
  const inside = (x, y) => x >= 0 && y >= 0 && x < width && y < height && labels[y * width + x] === label;
  let [x, y, way] = [beginX, beginY, 0];
  path.moveTo(x + 0.5, y);
  do {
    if (way === 0) seen[y * width + x] = 1;
    x += ACROSS[way];
    y += DOWN[way];
    if (!inside(x + RIGHT_X[way], y + RIGHT_Y[way])) way = (way + 1) % 4;
    else if (inside(x + LEFT_X[way], y + LEFT_Y[way])) way = (way + 3) % 4;
    path.lineTo(x + ACROSS[way] / 2, y + DOWN[way] / 2);
  } while (x !== beginX || y !== beginY || way !== 0);
}
