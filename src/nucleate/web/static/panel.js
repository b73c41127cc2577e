// What the page says in words: the image, the scale, the measurements of the selected nucleus.

const COLUMNS = {
  id: ["Number", ""],
  x: ["x", "px"],
  y: ["y", "px"],
  area: ["Area", "px²"],
  diameter: ["Diameter", "px"],
  mean_intensity: ["Mean intensity", ""],
  score: ["Score", ""],
  x_um: ["x", "µm"],
  y_um: ["y", "µm"],
  area_um2: ["Area", "µm²"],
  diameter_um: ["Diameter", "µm"],
  entropy: ["Entropy", "bits"],
};

// The name of a column of the table, and its unit; mean_intensity_DAPI is that of one channel.
export function named(column) {
  const channel = column.startsWith("mean_intensity_") && column.slice("mean_intensity_".length);
  return channel ? [`Mean intensity, ${channel}`, ""] : COLUMNS[column] ?? [column, ""];
}

const BAR = 140; // screen pixels; the scale bar is no longer
const byId = (id) => document.getElementById(id);

function list(rows) {
  const made = document.createElement("dl");
  fill(made, rows);
  return made;
}

function fill(made, rows) {
  const pairs = rows.map(([name, value]) => {
    const [term, detail] = [document.createElement("dt"), document.createElement("dd")];
    term.textContent = name;
    detail.textContent = value;
    return [term, detail];
  });
  made.replaceChildren(...pairs.flat());
}

function quiet(text) {
  const made = document.createElement("p");
  made.className = "quiet";
  made.textContent = text;
  return made;
}

export class Panel {
  // `find` is called with the number of a nucleus that a person asks for.
  constructor(find) {
    byId("find").addEventListener("submit", (event) => {
      event.preventDefault();
      find(Number(byId("number").value));
    });
  }

  describe(image) {
    const size = image.pixelSize;
    byId("number").max = image.count;
    byId("find").hidden = !image.measured;
    fill(byId("about"), [
      ["Nuclei", image.count.toLocaleString("en")],
      ["Size", `${image.width.toLocaleString("en")} × ${image.height.toLocaleString("en")} px`],
      ["Pixel", size === null ? "size not known" : `${Number(size.toPrecision(4))} µm`],
      ...(image.labelsFile ? [["Outlines from", image.labelsFile]] : []),
    ]);
  }

  showScale(camera, image) {
    const percent = 100 * camera.scale;
    byId("scale").textContent = `${percent < 10 ? percent.toFixed(1) : Math.round(percent)} %`;
    byId("bar").hidden = image.pixelSize === null;
    if (image.pixelSize === null) return;
    const longest = (BAR / camera.scale) * image.pixelSize; // micrometres
    const tens = 10 ** Math.floor(Math.log10(longest));
    const length = [5, 2, 1].find((number) => number * tens <= longest) * tens;
    byId("bar").style.width = `${(length / image.pixelSize) * camera.scale}px`;
    byId("bar").textContent = length < 1000 ? `${length} µm` : `${length / 1000} mm`;
  }

  show(number, row) {
    const known = Object.entries(row).map(([column, value]) => {
      const [name, unit] = named(column);
      return [name, unit ? `${value} ${unit}` : value];
    });
    const rows = known.length ? known : [["Number", number]];
    byId("selected").replaceChildren(list(rows));
    if (!known.length) byId("selected").append(quiet("No table was written: predict with --format csv."));
    byId("number").value = number;
  }

  // What is odd: sentences about the folder and about the image.
  note(sentences) {
    byId("notes").hidden = !sentences.length;
    byId("notes").replaceChildren(...sentences.map(quiet));
  }

  refuse(text) {
    byId("selected").replaceChildren(quiet(text));
  }

  // No image is open.
  forget() {
    fill(byId("about"), []);
    byId("find").hidden = byId("bar").hidden = true;
    this.clear();
  }

  clear() {
    this.refuse("Click on a nucleus to see its measurements.");
  }
}
